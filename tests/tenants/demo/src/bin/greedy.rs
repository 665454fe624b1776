//! A user Worker that never stops computing when asked for `/spin`.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;

use cloister::{Body, Context, Env, Request, Response};

fn main() -> Result<(), cloister::Error> {
    let count = Rc::new(Cell::new(0_u32));
    cloister::run(move |request: Request, _env: Env, _context: Context| {
        let count = Rc::clone(&count);
        async move {
            if request.uri().path() == "/spin" {
                let mut number = 0_u64;
                loop {
                    number = black_box(number.wrapping_add(1));
                }
            }
            count.set(count.get() + 1);
            Response::new(Body::from(format!("request {} of this process\n", count.get())))
        }
    })
}
