//! What the control plane asks of the other parts.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::registry::{Deployed, Registry, WorkerId};
use crate::telemetry::Telemetry;

/// A Worker was started behind its walls and answered.
#[derive(Debug, Clone)]
pub struct Startup {
    /// From the decision to start until it accepted requests, milliseconds.
    pub startup_ms: u64,
    /// The walls that were really raised.
    pub walls: serde_json::Value,
}

/// A Worker did not start: why, for its owner, with its last lines of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeFailure(pub String);

/// The processes of Workers.
pub trait Pool: Send + Sync + 'static {
    /// Starts a version once, outside any traffic, and ends it.
    fn probe(&self, deployed: &Arc<Deployed>) -> BoxFuture<'static, Result<Startup, ProbeFailure>>;
    /// Lets every process of the Worker that is not of its current version finish and end.
    fn retire(&self, worker: &WorkerId);
    /// All live processes, as JSON objects with at least `namespace`, `worker`, `version`, `pid`.
    fn live(&self) -> Vec<serde_json::Value>;
    /// The live processes of one Worker, as [`live`](Self::live), and of each what the `kernel` says
    /// of it and the `disagreements` of that with its walls.
    fn inspect(&self, worker: &WorkerId) -> BoxFuture<'static, Vec<serde_json::Value>>;
    /// Why the Worker's last start failed, while that is held against it.
    fn trouble(&self, worker: &WorkerId) -> Option<String>;
}

/// The egress filter, as far as operators look at it.
pub trait Egress: Send + Sync + 'static {
    /// The last decisions for what `worker` asked, oldest first, as JSON objects.
    fn decisions(&self, worker: &WorkerId) -> Vec<serde_json::Value>;
    /// The policy files and whether they are in force.
    fn policies(&self) -> Vec<serde_json::Value>;
}

/// The parts that the control plane acts on and looks at.
#[derive(Clone)]
pub struct Parts {
    /// What is published for dispatch.
    pub registry: Registry,
    /// The processes.
    pub pool: Arc<dyn Pool>,
    /// The egress filter.
    pub egress: Arc<dyn Egress>,
    /// What happened.
    pub telemetry: Telemetry,
    /// Becomes true when the supervisor is to end.
    pub stop: watch::Receiver<bool>,
}
