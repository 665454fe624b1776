//! The snapshot and the pointer to it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::quality::RandomState;
use rpds::HashTrieMapSync;

use super::{Binding, Deployed, WorkerId};
use crate::egress::OutboundCall;

/// Workers of one namespace by name; persistent, so that a change copies a path and not the map.
type Workers = HashTrieMapSync<Arc<str>, Arc<Deployed>, RandomState>;

/// All that is deployed at one moment. Cloning costs nothing; a change costs the same with one
/// Worker or a million.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    account: Workers,
    namespaces: HashTrieMapSync<Arc<str>, Workers, RandomState>,
}

impl Snapshot {
    /// The current version of a Worker.
    #[must_use]
    pub fn get(&self, id: &WorkerId) -> Option<&Arc<Deployed>> {
        self.find(id.namespace.as_deref(), &id.name)
    }

    /// The same without an owned id; namespace `None` means a Worker of the account itself.
    #[must_use]
    pub fn find(&self, namespace: Option<&str>, name: &str) -> Option<&Arc<Deployed>> {
        match namespace {
            None => self.account.get(name),
            Some(namespace) => self.namespaces.get(namespace)?.get(name),
        }
    }

    /// True for a namespace that exists, also an empty one.
    #[must_use]
    pub fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// The outbound Worker that a dispatch Worker of the account gives to calls into `namespace`, if one
    /// does: the first by name, without parameters.
    #[must_use]
    pub fn outbound_of(&self, namespace: &str) -> Option<OutboundCall> {
        let bindings = self.account.values().flat_map(|deployed| deployed.bindings.values());
        let names = bindings.filter_map(|binding| match binding {
            Binding::DispatchNamespace { namespace: bound, outbound } if **bound == *namespace => {
                outbound.as_ref().map(|outbound| &outbound.worker)
            }
            _ => None,
        });
        let worker = WorkerId { namespace: None, name: Arc::clone(names.min()?) };
        Some(OutboundCall { worker, params: Vec::new() })
    }

    /// Every Worker, in no order.
    pub fn workers(&self) -> impl Iterator<Item = &Arc<Deployed>> {
        self.account.values().chain(self.namespaces.values().flat_map(Workers::values))
    }

    /// Number of Workers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.account.size() + self.namespaces.values().map(Workers::size).sum::<usize>()
    }

    /// True when nothing is deployed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a namespace; one that exists keeps its Workers.
    pub fn add_namespace(&mut self, namespace: &str) {
        if !self.has_namespace(namespace) {
            self.namespaces.insert_mut(namespace.into(), Workers::default());
        }
    }

    /// Removes a namespace and its Workers.
    pub fn remove_namespace(&mut self, namespace: &str) {
        self.namespaces.remove_mut(namespace);
    }

    /// Adds a Worker's version, or replaces the one it has; adds its namespace when missing.
    pub fn insert(&mut self, deployed: Arc<Deployed>) {
        let name = Arc::clone(&deployed.id.name);
        match deployed.id.namespace.clone() {
            None => self.account.insert_mut(name, deployed),
            Some(namespace) => {
                self.add_namespace(&namespace);
                if let Some(workers) = self.namespaces.get_mut(&namespace) {
                    workers.insert_mut(name, deployed);
                }
            }
        }
    }

    /// Removes a Worker.
    pub fn remove(&mut self, id: &WorkerId) {
        match &id.namespace {
            None => {
                self.account.remove_mut(&id.name);
            }
            Some(namespace) => {
                if let Some(workers) = self.namespaces.get_mut(namespace) {
                    workers.remove_mut(&id.name);
                }
            }
        }
    }
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
        self.0.load().get(id).cloned()
    }

    /// Makes `snapshot` the current one.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }

    /// Publishes a changed copy of the current snapshot; `change` may run more than once when
    /// writers race.
    pub fn update(&self, change: impl Fn(&mut Snapshot)) {
        self.0.rcu(|current| {
            let mut next = Snapshot::clone(current);
            change(&mut next);
            next
        });
    }
}
