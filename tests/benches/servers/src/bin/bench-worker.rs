//! The SDK Worker: answers as every contestant does, and misbehaves when asked to.
//!
//! - `/b/N`: see the library;
//! - `/spin/MS`: uses the CPU that long;
//! - `/allocate/MIB`: touches that much memory, then lets it go;
//! - `/log/LINES`: prints that many lines;
//! - `/fetch/N/ORIGIN`: asks `http://ORIGIN/b/0` that often, one after the other.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cloister::{Body, BoxError, Context, Env, Request, Response};
use cloister_bench_servers::{Bodies, MOST_BYTES, wanted};
use http_body_util::BodyExt as _;

fn main() -> Result<(), cloister::Error> {
    let bodies = Rc::new(RefCell::new(Bodies::default()));
    cloister::run(move |request: Request, _: Env, _: Context| answer(request, Rc::clone(&bodies)))
}

async fn answer(request: Request, bodies: Rc<RefCell<Bodies>>) -> Result<Response, BoxError> {
    let (parts, mut body) = request.into_parts();
    if let Some(length) = wanted(parts.uri.path()) {
        // As the bare server does it: not kept, or many large ones would meet the memory limit.
        while let Some(frame) = body.frame().await {
            drop(frame?);
        }
        return Ok(Response::new(Body::full(bodies.borrow_mut().get(length))));
    }
    let mut words = parts.uri.path().splitn(4, '/').skip(1);
    let (what, amount, rest) = (words.next(), words.next().and_then(|n| n.parse().ok()), words.next());
    match (what, amount, rest) {
        (Some("spin"), Some(ms), None) => spin(Duration::from_millis(ms)),
        (Some("allocate"), Some(mib), None) => allocate(mib),
        (Some("log"), Some(lines), None) => log(lines)?,
        (Some("fetch"), Some(times), Some(origin)) => {
            for _ in 0..times {
                let request = http::Request::get(format!("http://{origin}/b/0")).body(Body::empty())?;
                drop(cloister::fetch(request).await?.into_body().bytes(MOST_BYTES).await?);
            }
        }
        _ => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return Ok(response);
        }
    }
    Ok(Response::new(Body::empty()))
}

fn spin(duration: Duration) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn allocate(mib: u64) {
    let pages = usize::try_from(mib).unwrap_or(usize::MAX).saturating_mul(256);
    let taken: Vec<Vec<u8>> = (0..pages).map(|_| vec![1; 4096]).collect();
    std::hint::black_box(taken);
}

fn log(lines: u64) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for number in 0..lines {
        writeln!(out, "line {number} of a Worker that talks too much, and says nothing at all with it")?;
    }
    Ok(())
}
