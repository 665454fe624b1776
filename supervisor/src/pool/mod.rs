//! Live Worker processes: found, started, shared out, ended.

mod backoff;
mod callers;
mod instance;
mod keeper;
mod meter;
mod process;
mod slot;
mod start;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

pub use callers::BACKGROUND;
pub use instance::{Fate, Instance};
pub use keeper::{Inspected, LiveWorker};
pub use process::{Ended, Process, Start, StartFailed, Started};
pub use slot::Lease;
pub use start::Startup;
pub use watch::{Ticket, Watch, Watched};

use crate::egress::Caller as EgressCaller;
use crate::outcome::Failure;
use crate::registry::{Deployed, Registry, WorkerId};
use crate::telemetry::Telemetry;
use slot::Slot;

/// What the pool is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Longest time from starting a process until it is ready.
    pub start_timeout: Duration,
    /// How long a process may do nothing before it is ended.
    pub idle: Duration,
    /// Memory of all processes together, bytes; above it the longest idle are ended.
    pub memory_bytes: Option<u64>,
    /// Longest that a process which was replaced may finish its requests.
    pub drain: Duration,
    /// Most requests that wait for a process of one Worker.
    pub waiting: usize,
    /// Longest time a request waits for a process, besides the start itself.
    pub patience: Duration,
    /// Number of data plane threads.
    pub shards: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            start_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            memory_bytes: None,
            drain: Duration::from_secs(60),
            waiting: 1024,
            patience: Duration::from_secs(10),
            shards: 1,
        }
    }
}

/// Why no process could be had.
#[derive(Debug, Clone)]
pub struct Refused {
    /// What the client is told.
    pub failure: Failure,
    /// What the Worker's owner is told.
    pub reason: Arc<str>,
    /// When it may be worth to ask again, seconds.
    pub retry_after: Option<u32>,
}

/// Serves connections that Workers of the `http` contract make to their proxy port.
pub trait ProxyServer: Send + Sync {
    /// Serves one connection until it ends.
    fn serve_proxy(self: Arc<Self>, instance: Arc<Instance>, stream: tokio::net::TcpStream);
}

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    starter: Arc<dyn Start>,
    options: Options,
    telemetry: Telemetry,
    registry: Registry,
    slots: RwLock<HashMap<WorkerId, Arc<Slot>, foldhash::quality::RandomState>>,
    numbers: AtomicU64,
    proxy: OnceLock<Weak<dyn ProxyServer>>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Pool {
    /// An empty pool that starts processes with `starter`.
    #[must_use]
    pub fn new(starter: Arc<dyn Start>, registry: Registry, telemetry: Telemetry, options: Options) -> Self {
        Self(Arc::new(Inner {
            starter,
            options,
            telemetry,
            registry,
            slots: RwLock::default(),
            numbers: AtomicU64::new(1),
            proxy: OnceLock::new(),
        }))
    }

    /// Says who serves the proxy ports of Workers; the first call counts.
    pub fn set_proxy(&self, proxy: Weak<dyn ProxyServer>) {
        let _ = self.0.proxy.set(proxy);
    }

    /// A process that takes one more invocation: a live one, or a new one, or the next that is free. A new one asks
    /// in the name of the `cause` before it has any.
    ///
    /// # Errors
    /// It can't be started, or too many wait: see [`Refused`].
    pub async fn acquire(&self, deployed: &Arc<Deployed>, cause: EgressCaller) -> Result<Lease, Refused> {
        let slot = self.slot(&deployed.id);
        slot.acquire(self, deployed, cause).await
    }

    /// As [`Self::acquire`], when a live process has room right now.
    #[must_use]
    pub fn acquire_now(&self, deployed: &Arc<Deployed>) -> Option<Lease> {
        self.slot(&deployed.id).acquire_now(self, deployed)
    }

    /// Drains processes of all versions of `worker` but the current one; of all when it is deleted.
    pub fn retire(&self, worker: &WorkerId) {
        let current = self.0.registry.get(worker).map(|deployed| Arc::clone(&deployed.version));
        let slot = self.0.slots.read().unwrap_or_else(PoisonError::into_inner).get(worker).cloned();
        let Some(slot) = slot else { return };
        slot.retire(current.as_ref());
    }

    fn slot(&self, id: &WorkerId) -> Arc<Slot> {
        if let Some(slot) = self.0.slots.read().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Arc::clone(slot);
        }
        let mut slots = self.0.slots.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id.clone()).or_default())
    }

    fn next_number(&self) -> u64 {
        self.0.numbers.fetch_add(1, Ordering::Relaxed)
    }
}
