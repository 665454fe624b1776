//! Write a Worker for Cloister: a program that answers HTTP requests
//! behind the platform's walls.
//!
//! Any tower service is a Worker, so an axum `Router` is one ([`serve`]); so is a closure
//! ([`run`]). A Worker opens no socket: the platform hands it requests and makes its outgoing
//! ones.
//!
//! ```no_run
//! use cloister::{Body, BoxError, Context, Env, Request, Response};
//!
//! async fn answer(request: Request, env: Env, ctx: Context) -> Result<Response, BoxError> {
//!     // Bindings: variables, secrets, other Workers.
//!     let greeting = env.var("GREETING")?;
//!     // Outgoing requests go through the platform's egress filter.
//!     let rates = cloister::fetch(http::Request::get("https://rates.example/today").body(Body::empty())?).await?;
//!     // Work that goes on after the answer.
//!     let path = request.uri().path().to_owned();
//!     ctx.wait_until(async move { println!("answered {path}") });
//!     Ok(Response::new(Body::from(format!("{greeting}: {}", rates.status()))))
//! }
//!
//! fn main() -> Result<(), cloister::Error> {
//!     cloister::run(answer)
//! }
//! ```
//!
//! An axum application needs no more than this; handlers find [`Env`] and [`Context`] as
//! extensions:
//!
//! ```no_run
//! use axum::{Extension, Router, routing::get};
//! use cloister::Env;
//!
//! async fn hello(Extension(env): Extension<Env>) -> String {
//!     env.var("GREETING").unwrap_or("hello").to_owned()
//! }
//!
//! fn main() -> Result<(), cloister::Error> {
//!     cloister::serve(Router::new().route("/", get(hello)))
//! }
//! ```
//!
//! Everything runs on one thread, on a tokio runtime with network-less I/O and timers; handlers
//! need not be `Send` in [`run`], and `tokio::task::spawn_local` works. A panic in a handler is
//! recorded as the request's exception and the Worker goes on. A client that goes away drops the
//! handler where it waits; [`Context::wait_until`] work goes on.
//!
//! Build a static binary: it starts fastest, and needs no libraries inside the walls:
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target x86_64-unknown-linux-gnu
//! ```

#![forbid(unsafe_code)]

mod answer;
mod body;
mod context;
mod control;
mod dispatch;
mod driver;
mod entry;
mod env;
mod error;
mod fetch;
mod handler;
mod incoming;
mod invocation;
mod link;
mod process;
mod stream;
mod task;
mod upgrade;

pub use answer::{Answer, pass_on};
pub use body::Body;
pub use context::{Context, Outbound};
pub use dispatch::{Dispatcher, Fetcher, Limits, Options};
pub use entry::{run, run_on, serve, serve_on};
pub use env::Env;
pub use error::{BindingError, BodyError, BoxError, Error, FetchError, UpgradeError};
pub use fetch::fetch;
pub use upgrade::{OnUpgrade, Upgradable, Upgraded, upgrade};

/// A request as Workers get it.
pub type Request<B = Body> = http::Request<B>;

/// A response as Workers give it.
pub type Response<B = Body> = http::Response<B>;
