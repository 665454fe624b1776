//! From a request to the Worker that answers it, through as many Workers as it takes.

mod bindings;
mod body;
mod cut;
mod explain;
mod gather;
mod headers;
mod hop;
mod http_handoff;
mod invocation;
mod routes;
mod run;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use http::{Response, request};

pub use headers::strip_request;
pub use hop::Hop;
pub use invocation::Invocation;
pub use routes::{Routed, Routes};

use crate::body::Body;
use crate::config::Routing;
use crate::egress::Egress;
use crate::limits::Limits;
use crate::outcome::Failure;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::telemetry::Telemetry;

/// Most Workers one client request may go through.
pub const DEPTH: u8 = 16;

/// A request that gets no answer from a Worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub failure: Failure,
    /// When it may be worth to ask again, seconds.
    pub retry_after: Option<u32>,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let retry_after = matches!(failure, Failure::LoadShed | Failure::RateLimited).then_some(1);
        Self { failure, retry_after }
    }
}

/// What the dispatcher works with.
pub struct Parts {
    /// What is deployed.
    pub registry: Registry,
    /// Live processes.
    pub pool: Pool,
    /// The way out.
    pub egress: Arc<Egress>,
    /// Where records go.
    pub telemetry: Telemetry,
    /// Routes.
    pub routing: Routing,
    /// Plan-wide ceilings.
    pub ceilings: Limits,
    /// Tell clients about each invocation in a `server-timing` header.
    pub timing: bool,
}

/// See the module.
pub struct Dispatcher {
    own: Weak<Self>,
    registry: Registry,
    pool: Pool,
    egress: Arc<Egress>,
    telemetry: Telemetry,
    routes: ArcSwap<Routes>,
    ceilings: Limits,
    timing: bool,
    /// What is held of bodies that are waited for.
    gathered: Arc<gather::Budget>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("ceilings", &self.ceilings).finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher; it serves the pool's Workers' proxy ports too. Lend it to the egress filter as
    /// outbound invoker and for bindings.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let dispatcher = Arc::new_cyclic(|own: &Weak<Self>| Self {
            own: Weak::clone(own),
            registry: parts.registry,
            pool: parts.pool,
            egress: parts.egress,
            telemetry: parts.telemetry,
            routes: ArcSwap::from_pointee(Routes::new(parts.routing)),
            ceilings: parts.ceilings,
            timing: parts.timing,
            gathered: gather::Budget::new(),
        });
        let proxy: Weak<dyn crate::pool::ProxyServer> = Arc::downgrade(&dispatcher) as _;
        dispatcher.pool.set_proxy(proxy);
        dispatcher
    }

    /// Replaces the routes.
    pub fn set_routing(&self, routing: Routing) {
        self.routes.store(Arc::new(Routes::new(routing)));
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The telemetry.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Answers a client's request: by the first route that takes it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn answer(
        &self,
        ray: Arc<str>,
        client: Arc<str>,
        request: Box<request::Parts>,
        body: Body,
    ) -> Result<Box<Response<Body>>, Refusal> {
        let routed = self.routes.load().find(&request)?;
        let hop = Hop { limits: routed.limits, ..Hop::first(ray, client) };
        self.serve_parts(Arc::new(hop), routed.worker, request, body).await
    }
}
