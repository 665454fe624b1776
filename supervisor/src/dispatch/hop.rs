//! What is known of a call to a Worker besides the request.

use std::sync::Arc;

use cloister_ipc::worker::OutboundContext;

use crate::egress::{Budget, Caller as EgressCaller, OutboundCall};
use crate::limits::Limits;
use crate::registry::{Deployed, WorkerId};
use crate::slots::Slot;

/// One call in the chain of Workers that a client's request goes through.
#[derive(Debug, Clone)]
pub struct Hop {
    /// Id of the client's request.
    pub ray: Arc<str>,
    /// The client's address, as text; empty when there is none.
    pub client: Arc<str>,
    /// How many Workers were called before for the same client request.
    pub depth: u8,
    /// The Worker that calls; `None` for the client itself.
    pub via: Option<WorkerId>,
    /// Limits of the route or of the dispatch call.
    pub limits: Limits,
    /// Arguments of the dispatch call, JSON text; empty for none.
    pub args: String,
    /// The outbound Worker that gets what this Worker fetches.
    pub outbound: Option<OutboundCall>,
    /// Set when this Worker is called as an outbound Worker.
    pub as_outbound: Option<OutboundContext>,
    /// Set with `as_outbound`: for whom.
    pub on_behalf_of: Option<WorkerId>,
    /// What a Worker that waits for this call's answer may have of such calls.
    pub(crate) _place: Option<Arc<Slot<WorkerId>>>,
}

impl Hop {
    /// The first hop of a client's request.
    #[must_use]
    pub fn first(ray: Arc<str>, client: Arc<str>) -> Self {
        Self {
            ray,
            client,
            depth: 0,
            via: None,
            limits: Limits::default(),
            args: String::new(),
            outbound: None,
            as_outbound: None,
            on_behalf_of: None,
            _place: None,
        }
    }

    /// A hop after `self`, called by `via`, with nothing passed on but who the client is.
    #[must_use]
    pub fn next(ray: &Arc<str>, client: &Arc<str>, depth: u8, via: WorkerId) -> Self {
        let first = Self::first(Arc::clone(ray), Arc::clone(client));
        Self { depth: depth.saturating_add(1), via: Some(via), ..first }
    }

    /// Who the requests of `deployed` are from while it answers this call.
    #[must_use]
    pub fn egress_caller(&self, deployed: &Deployed, budget: &Arc<Budget>) -> EgressCaller {
        EgressCaller {
            worker: deployed.id.clone(),
            version: Arc::clone(&deployed.version),
            ray: Arc::clone(&self.ray),
            depth: self.depth,
            subrequests: Arc::clone(budget),
            outbound: self.outbound.clone(),
            on_behalf_of: self.on_behalf_of.clone(),
        }
    }
}
