//! The bare hyper server: the limit of the machine, the upstream of the proxies, and (unmodified)
//! the `http` Worker.
//!
//! `bench-hyper tcp:127.0.0.1:8080`, `bench-hyper unix:/path`, or without an argument
//! `tcp:127.0.0.1:$PORT`.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use cloister_bench_servers::{Bodies, listen, wanted};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

fn main() -> std::io::Result<()> {
    let place = match (std::env::args().nth(1), std::env::var("PORT")) {
        (Some(place), _) => place,
        (None, Ok(port)) => format!("tcp:127.0.0.1:{port}"),
        (None, Err(_)) => return Err(std::io::Error::other("usage: bench-hyper PLACE, or PORT set")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let bodies = Rc::new(RefCell::new(Bodies::default()));
        listen::serve(&place, move |request| answer(request, Rc::clone(&bodies))).await
    })
}

async fn answer(
    request: Request<Incoming>,
    bodies: Rc<RefCell<Bodies>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let length = wanted(request.uri().path());
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            break;
        }
    }
    let bytes = length.map(|length| bodies.borrow_mut().get(length));
    let found = bytes.is_some();
    let mut response = Response::new(Full::new(bytes.unwrap_or_default()));
    if !found {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    Ok(response)
}
