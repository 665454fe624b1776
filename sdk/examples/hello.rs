//! The smallest Worker: a static answer.

use cloister::{Body, Context, Env, Request, Response};

fn main() -> Result<(), cloister::Error> {
    cloister::run(|_request: Request, _env: Env, _ctx: Context| async {
        Response::new(Body::from("Hello, world!\n"))
    })
}
