//! Asking other Workers: user Workers of a dispatch namespace, and services.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cloister_ipc::worker::{DispatchOptions, RequestHead, Target, WorkerBody};
use http::{Request, Response};
use http_body::Body as HttpBody;

use crate::body::{Body, Outgoing, outgoing};
use crate::error::{BoxError, FetchError};
use crate::invocation::Invocation;

/// Limits that a dispatch Worker sets for one invocation. They can only lower what the plan and
/// the user Worker's own settings allow; `None` does not limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// CPU time, milliseconds.
    pub cpu_ms: Option<u32>,
    /// Outgoing requests and dispatches.
    pub subrequests: Option<u32>,
    /// Wall time, milliseconds.
    pub wall_ms: Option<u32>,
}

/// How a user Worker is invoked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Limits of the invocation.
    pub limits: Limits,
    /// Handed to the user Worker, which reads it with [`Context::args`](crate::Context::args).
    pub args: Option<serde_json::Value>,
    /// Handed to the binding's outbound Worker, by name; the binding declares the names.
    pub outbound: BTreeMap<String, serde_json::Value>,
}

/// A dispatch namespace.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    invocation: Arc<Invocation>,
    binding: String,
}

impl Dispatcher {
    pub(crate) fn new(invocation: Arc<Invocation>, binding: &str) -> Self {
        Self { invocation, binding: binding.to_owned() }
    }

    /// The user Worker `name`. Whether it exists shows when it is asked:
    /// [`FetchError::NotFound`].
    #[must_use]
    pub fn get(&self, name: &str, options: Options) -> Fetcher {
        let options = DispatchOptions {
            cpu_ms: options.limits.cpu_ms,
            subrequests: options.limits.subrequests,
            wall_ms: options.limits.wall_ms,
            args: options.args.map(|args| args.to_string()).unwrap_or_default(),
            outbound: options.outbound.into_iter().map(|(name, json)| (name, json.to_string())).collect(),
        };
        let target = Target::Dispatch { binding: self.binding.clone(), worker: name.to_owned(), options };
        Fetcher::new(self.invocation.clone(), target)
    }
}

/// Another Worker, to be asked.
#[derive(Debug, Clone)]
pub struct Fetcher {
    invocation: Arc<Invocation>,
    target: Target,
}

impl Fetcher {
    pub(crate) fn new(invocation: Arc<Invocation>, target: Target) -> Self {
        Self { invocation, target }
    }

    /// Asks it. A response that is returned with its body unread is passed on by the platform: its
    /// bytes never enter this process.
    pub fn fetch<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Body>, FetchError>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        crate::fetch::perform(Some(self.invocation.clone()), self.target.clone(), request)
    }

    /// Lets it answer in this Worker's place: what is returned here must be returned by the
    /// handler as it is, and stands for the other's answer, which never comes this way. The
    /// quickest way to dispatch, when the answer need not be seen. When that Worker fails or does
    /// not exist, the client is told by the platform.
    ///
    /// The request's body must be the handled request's own, still unread, or be short and all
    /// there (at most 64 KiB); anything else is [`FetchError::Invalid`].
    pub fn tail<B>(&self, request: Request<B>) -> Result<Response<Body>, FetchError>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if self.invocation.is_over() {
            return Err(FetchError::Over);
        }
        let (parts, body) = request.into_parts();
        let given = self.invocation.facts.are_given(&parts);
        let head = if given { None } else { Some(crate::fetch::head(&parts)?) };
        let (body, inline) = match outgoing(body, &self.invocation).map_err(FetchError::Body)? {
            Outgoing::Empty => (WorkerBody::Empty, Bytes::new()),
            Outgoing::Inline(bytes) => (WorkerBody::Inline, bytes),
            Outgoing::Forward(held) => (WorkerBody::Forward(held.forward()), Bytes::new()),
            Outgoing::Stream(_) => {
                return Err(FetchError::Invalid(
                    "tail takes the request's own unread body or a short one: use fetch".to_owned(),
                ));
            }
        };
        let handoff = Handoff { target: self.target.clone(), head, body, inline };
        let mut response = Response::new(Body::empty());
        response.extensions_mut().insert(Placed::new(handoff));
        Ok(response)
    }
}

/// What a tail dispatch leaves in its response.
#[derive(Debug)]
pub(crate) struct Handoff {
    pub(crate) target: Target,
    pub(crate) head: Option<RequestHead>,
    pub(crate) body: WorkerBody,
    pub(crate) inline: Bytes,
}

/// A value carried in the extensions of a response, which must be cloneable; taken once.
#[derive(Debug)]
pub(crate) struct Placed<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Placed<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Placed<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Mutex::new(Some(value))))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
