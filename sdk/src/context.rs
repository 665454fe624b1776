//! What a handler knows about its request besides HTTP.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use serde::de::DeserializeOwned;

use crate::body::Body;
use crate::error::{BoxError, FetchError};
use crate::invocation::{HoldKind, Invocation};
use crate::task::Spawned;
use cloister_ipc::worker::{OutboundContext, Target};

/// The request's surroundings: who asks, on whose behalf, and what may go on after the answer.
///
/// Cheap to clone. Services get it as a request extension: `axum::Extension<Context>`.
#[derive(Clone)]
pub struct Context {
    invocation: Arc<Invocation>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("ray", &self.ray()).finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(invocation: Arc<Invocation>) -> Self {
        Self { invocation }
    }

    /// Lets `work` go on after the answer was given; the platform gives it 30 seconds. A panic in
    /// it ends it alone. Call it before the handler answers: what is added later runs, but the
    /// platform does not wait for it.
    pub fn wait_until(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.invocation.link.spawn(Spawned {
            work: Box::pin(work),
            hold: self.invocation.hold(HoldKind::Work),
            invocation: self.invocation.clone(),
        });
    }

    /// Makes an outgoing request through the platform's egress filter. The URI must be absolute.
    /// As [`crate::fetch`], but works also in spawned tasks.
    pub fn fetch<B>(
        &self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Body>, FetchError>> + Send + use<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        crate::fetch::perform(Some(self.invocation.clone()), Target::Egress, request)
    }

    /// The platform's id of the whole request, as in its logs.
    #[must_use]
    pub fn ray(&self) -> &str {
        self.invocation.facts.ray.as_str()
    }

    /// The client's address; `None` when the request did not come from outside.
    #[must_use]
    pub fn client_ip(&self) -> Option<IpAddr> {
        self.invocation.facts.client.as_str().parse().ok()
    }

    /// The arguments that the dispatch Worker gave, or `None` when it gave none.
    pub fn args<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        let text = self.invocation.facts.args.as_str();
        if text.is_empty() { Ok(None) } else { serde_json::from_str(text).map(Some) }
    }

    /// For whom this Worker is asked, when it is called as an outbound Worker.
    #[must_use]
    pub fn outbound(&self) -> Option<Outbound<'_>> {
        self.invocation.facts.outbound.as_ref().map(Outbound)
    }

    /// Namespace of this Worker; empty for a Worker of the account itself.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.invocation.start.namespace
    }

    /// Name of this Worker.
    #[must_use]
    pub fn worker(&self) -> &str {
        &self.invocation.start.worker
    }

    /// Id of this Worker's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.invocation.start.version
    }
}

/// For whom an outbound Worker is asked.
#[derive(Debug, Clone, Copy)]
pub struct Outbound<'a>(&'a OutboundContext);

impl<'a> Outbound<'a> {
    /// Namespace of the user Worker that fetches.
    #[must_use]
    pub fn namespace(&self) -> &'a str {
        &self.0.namespace
    }

    /// Name of the user Worker that fetches.
    #[must_use]
    pub fn worker(&self) -> &'a str {
        &self.0.worker
    }

    /// A parameter of the dispatch call, or `None` when it has none of this name.
    pub fn param<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        let param = self.0.params.iter().find(|(key, _)| key == name);
        param.map(|(_, json)| serde_json::from_str(json)).transpose()
    }

    /// Names of the parameters.
    pub fn params(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.params.iter().map(|(name, _)| name.as_str())
    }
}
