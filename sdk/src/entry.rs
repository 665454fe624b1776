//! Ways to start.

use std::future::Future;
use std::os::fd::OwnedFd;

use http_body::Body as HttpBody;
use tokio::task::LocalSet;
use tower_service::Service;

use crate::answer::Answer;
use crate::body::Body;
use crate::context::Context;
use crate::env::Env;
use crate::error::{BoxError, Error};
use crate::handler::{FnHandler, Handler, ServiceHandler};
use crate::{Request, Response, control, process};

/// Serves a closure or an async function until the platform ends the Worker. To be called from
/// `main`.
///
/// The handler returns a response, or a `Result` with one. It need not be `Send`.
pub fn run<F, Fut>(handler: F) -> Result<(), Error>
where
    F: Fn(Request<Body>, Env, Context) -> Fut + 'static,
    Fut: Future<Output: Answer> + 'static,
{
    block_on(control::inherited()?, FnHandler::new(handler))
}

/// Serves a tower service, such as an axum `Router`, until the platform ends the Worker. To be
/// called from `main`.
///
/// Each request carries [`Env`] and [`Context`] as extensions. An error of the service is
/// recorded as the request's exception.
pub fn serve<S, B>(service: S) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone + 'static,
    S::Future: 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    block_on(control::inherited()?, ServiceHandler(service))
}

/// As [`run`], on a control socket given and on the caller's tokio runtime (current-thread, with
/// I/O and time). For tests, and for hosts of one's own.
pub async fn run_on<F, Fut>(control: OwnedFd, handler: F) -> Result<(), Error>
where
    F: Fn(Request<Body>, Env, Context) -> Fut + 'static,
    Fut: Future<Output: Answer> + 'static,
{
    process::run(control, FnHandler::new(handler)).await
}

/// As [`serve`], on a control socket given and on the caller's tokio runtime (current-thread, with
/// I/O and time). For tests, and for hosts of one's own.
pub async fn serve_on<S, B>(control: OwnedFd, service: S) -> Result<(), Error>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone + 'static,
    S::Future: 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    process::run(control, ServiceHandler(service)).await
}

fn block_on<H: Handler + 'static>(control: OwnedFd, handler: H) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Error::io("start the runtime"))?;
    LocalSet::new().block_on(&runtime, process::run(control, handler))
}
