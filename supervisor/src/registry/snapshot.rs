//! The snapshot and the pointer to it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Deployed, WorkerId};

/// All that is deployed at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Dispatch namespaces that exist, also empty ones.
    pub namespaces: HashSet<Arc<str>>,
    /// Every Worker's current version.
    pub workers: HashMap<WorkerId, Arc<Deployed>>,
}

/// The pointer to the current snapshot; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<ArcSwap<Snapshot>>);

impl Registry {
    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// The current version of a Worker.
    #[must_use]
    pub fn get(&self, id: &WorkerId) -> Option<Arc<Deployed>> {
        self.0.load().workers.get(id).cloned()
    }

    /// Makes `snapshot` the current one.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}
