//! What the control plane asks of the data plane.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::registry::{Deployed, WorkerId};

/// A Worker was started behind its walls and answered.
#[derive(Debug, Clone)]
pub struct Startup {
    /// From the decision to start until it accepted requests, milliseconds.
    pub startup_ms: u64,
    /// The walls that were really raised.
    pub walls: serde_json::Value,
}

/// A Worker did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Its own fault; for its owner, with its last lines of output.
    Worker(String),
    /// The machine's or the platform's fault; for the operator.
    Platform(String),
}

/// The processes of Workers.
pub trait Pool: Send + Sync + 'static {
    /// Starts a version once, outside any traffic, and ends it.
    fn probe(&self, deployed: &Arc<Deployed>) -> BoxFuture<'static, Result<Startup, ProbeFailure>>;
    /// Lets every process of the Worker that is not of its current version finish and end.
    fn retire(&self, worker: &WorkerId);
    /// All live processes, as JSON objects with at least `namespace`, `worker`, `version`, `pid`.
    fn live(&self) -> Vec<serde_json::Value>;
}
