//! Who asks, and what the rest of the supervisor lends to the filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cloister_ipc::worker::OutboundContext;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use crate::body::Body;
use crate::outcome::Failure;
use crate::registry::WorkerId;

/// On whose behalf a request goes out.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The Worker that asks; its policy judges.
    pub worker: WorkerId,
    /// Its version; connections are reused only within one version.
    pub version: Arc<str>,
    /// Id of the client's request, for logs.
    pub ray: Arc<str>,
    /// How many Workers deep the client's request is.
    pub depth: u8,
    /// What the invocation may still ask for.
    pub subrequests: Arc<Budget>,
    /// The outbound Worker the dispatch call carries: it gets every request the policy lets pass.
    pub outbound: Option<OutboundCall>,
    /// Set while `worker` runs *as* an outbound Worker: for whom. Its policy must then say `allow`,
    /// an `outbound` verdict would be a loop and is refused.
    pub on_behalf_of: Option<WorkerId>,
}

/// Against whom a request counts. What an outbound Worker asks for counts by itself for each Worker on whose
/// behalf it asks, or one of them would use up what is there for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Payer {
    /// The Worker that asks.
    pub(super) worker: WorkerId,
    /// For whom.
    pub(super) on_behalf_of: Option<WorkerId>,
}

impl Caller {
    /// Against whom its requests count.
    pub(super) fn payer(&self) -> Payer {
        Payer { worker: self.worker.clone(), on_behalf_of: self.on_behalf_of.clone() }
    }
}

/// The outbound Worker of a dispatch call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundCall {
    /// A Worker of the account.
    pub worker: WorkerId,
    /// Parameters of the dispatch call, name and JSON text.
    pub params: Vec<(String, String)>,
}

/// The subrequests an invocation has left.
#[derive(Debug)]
pub struct Budget {
    limit: Option<u32>,
    used: AtomicU32,
}

/// The subrequest limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the limit of {limit} subrequests is used up")]
pub struct Exhausted {
    /// The limit.
    pub limit: u32,
}

impl Budget {
    /// A budget of `limit` subrequests; `None` does not limit.
    #[must_use]
    pub const fn new(limit: Option<u32>) -> Self {
        Self { limit, used: AtomicU32::new(0) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// [`Exhausted`] when none is left; every later call fails as well.
    pub fn take(&self) -> Result<(), Exhausted> {
        let limit = self.limit.unwrap_or(u32::MAX);
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| (used < limit).then(|| used + 1));
        match (taken, self.limit) {
            (Err(_), Some(limit)) => Err(Exhausted { limit }),
            _ => Ok(()),
        }
    }

    /// How many were taken.
    #[must_use]
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }
}

/// Runs an outbound Worker.
pub trait OutboundInvoker: Send + Sync {
    /// Hands `req` (its URI is what the caller asked for) to the Worker `outbound`. What that
    /// Worker then asks for comes back to [`Egress::fetch`](super::Egress::fetch) with a [`Caller`]
    /// of its own: `worker` is the outbound Worker, `outbound` is `None`, `on_behalf_of` is the
    /// caller's Worker, `depth` is one more.
    fn invoke<'a>(
        &'a self,
        outbound: &'a WorkerId,
        context: OutboundContext,
        caller: &'a Caller,
        req: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Failure>>;
}

/// Which binding a reserved host name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingTarget {
    /// `http://<binding>.cloister/`: a service binding.
    Service {
        /// Name of the binding, lower-case.
        binding: String,
    },
    /// `http://<worker>.<binding>.cloister/`: a dispatch through a `dispatch_namespace` binding.
    Dispatch {
        /// Name of the binding, lower-case.
        binding: String,
        /// Name of the user Worker, lower-case.
        worker: String,
    },
}

/// The bindings of a process of the `http` contract, by reserved host names behind its proxy.
pub trait Bindings: Send + Sync {
    /// Calls a binding of the process that asks. Names are lower-case, since host names are: compare
    /// without case. Takes from `caller.subrequests` itself, as any other dispatch does.
    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        target: BindingTarget,
        req: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Failure>>;
}

/// Gives the secrets that a policy's `${secret:NAME}` stands for.
pub trait Secrets: Send + Sync {
    /// The secret `name` of `worker`; `None` when it has none of that name.
    fn secret(&self, worker: &WorkerId, name: &str) -> Option<String>;
}

impl<F: Fn(&WorkerId, &str) -> Option<String> + Send + Sync> Secrets for F {
    fn secret(&self, worker: &WorkerId, name: &str) -> Option<String> {
        self(worker, name)
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn a_budget_ends_and_stays_ended() {
        let budget = Budget::new(Some(2));
        assert!(budget.take().is_ok());
        assert!(budget.take().is_ok());
        assert_eq!(budget.take().unwrap_err().limit, 2);
        assert!(budget.take().is_err());
        assert_eq!(budget.used(), 2);
        assert!(Budget::new(Some(0)).take().is_err());
        assert!(Budget::new(None).take().is_ok());
    }
}
