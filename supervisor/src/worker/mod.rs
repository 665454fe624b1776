//! Talking to Worker processes: both contracts give the same [`Answer`].

pub mod http;
pub mod ipc;
mod tunnel;

use ::http::request::Parts;
use ::http::{Request, Response};
use cloister_ipc::worker::{FetchError, Target};
use futures_util::future::BoxFuture;

pub use tunnel::Tunnel;

use crate::body::Body;
use std::sync::Arc;

/// Why a request with the method CONNECT is none.
pub const NO_CONNECT: &str = "CONNECT asks for a tunnel, not for an answer: use another method";

/// What a Worker answered.
#[derive(Debug)]
pub enum Answer {
    /// Itself. Boxed, as it goes through many hands.
    Response(Box<Response<Body>>),
    /// By naming who shall answer (tail dispatch).
    Handoff(Box<Handoff>),
}

/// Who answers instead.
#[derive(Debug)]
pub struct Handoff {
    /// Who.
    pub target: Target,
    /// The request's head as that one shall see it; `None` for the one that the Worker was given.
    pub head: Option<Parts>,
    /// Its body.
    pub body: Body,
}

/// Why a Worker gave no answer.
#[derive(Debug)]
pub enum CallError {
    /// The process was gone before a byte of the request was sent: it may be sent to another.
    Unsent(Body),
    /// The process went away with the request.
    Gone,
    /// The request is too large to be sent to a Worker.
    Unsendable(String),
    /// The supervisor lacks something, descriptors perhaps.
    Internal(std::io::Error),
    /// The handler failed; the text is the tenant's, for its owner's log only.
    Exception(String),
    /// What it sent is not a response; the text is for its owner.
    BadResponse(String),
}

/// Who called a Worker, as its connection needs it: gives what the Worker's own fetches need.
pub trait Caller: Send + Sync {
    /// Makes an outgoing request of the Worker, on behalf of this invocation.
    fn fetch(
        self: Arc<Self>,
        target: Target,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, FetchError>>;

    /// Counts an outgoing request that makes no sense, for the `reason`: it costs what any other that comes to
    /// nothing costs, or a Worker could keep a thread busy with them.
    fn refuse(self: Arc<Self>, reason: String) -> BoxFuture<'static, FetchError>;

    /// What the Worker is told besides HTTP.
    fn context(&self) -> cloister_ipc::borrowed::Context<'_>;

    /// Who the Worker's requests through its proxy port are from.
    fn egress(&self) -> crate::egress::Caller;
}

/// The absolute URI of a request: its own, or made of the `Host` header.
#[must_use]
pub fn absolute_uri(parts: &Parts) -> String {
    if let (Some(scheme), Some(authority)) = (parts.uri.scheme_str(), parts.uri.authority()) {
        // By hand: `Display` costs ten times as much, and this is done for every request.
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut uri = String::with_capacity(scheme.len() + 3 + authority.as_str().len() + target.len());
        for part in [scheme, "://", authority.as_str(), target] {
            uri.push_str(part);
        }
        return uri;
    }
    let host = parts.headers.get(::http::header::HOST).and_then(|host| host.to_str().ok());
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let host = host.unwrap_or("localhost");
    let mut uri = String::with_capacity(7 + host.len() + target.len());
    uri.push_str("http://");
    uri.push_str(host);
    uri.push_str(target);
    uri
}
