//! How much of the supervisor one Worker may hold at a time: each thing held costs descriptors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::WorkerId;

/// Counts what Workers hold.
#[derive(Debug)]
pub(super) struct Slots {
    each: u32,
    held: Mutex<HashMap<WorkerId, u32>>,
}

/// One thing held, until dropped.
#[derive(Debug)]
pub(super) struct Slot {
    worker: WorkerId,
    slots: Arc<Slots>,
}

impl Slots {
    /// At most `each` for every Worker.
    pub(super) fn new(each: u32) -> Arc<Self> {
        Arc::new(Self { each, held: Mutex::default() })
    }

    /// The most that a Worker may hold.
    pub(super) fn each(&self) -> u32 {
        self.each
    }

    /// One more for `worker`, unless it holds as many as it may.
    pub(super) fn take(self: &Arc<Self>, worker: &WorkerId) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(worker) {
            Some(count) if *count >= self.each => return None,
            Some(count) => *count += 1,
            None => drop(held.insert(worker.clone(), 1)),
        }
        Some(Slot { worker: worker.clone(), slots: Arc::clone(self) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.slots.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.worker) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own() {
        let slots = Slots::new(2);
        let worker = |name: &str| WorkerId { namespace: None, name: name.into() };
        let first = slots.take(&worker("a")).unwrap();
        let second = slots.take(&worker("a")).unwrap();
        assert!(slots.take(&worker("a")).is_none());
        assert!(slots.take(&worker("b")).is_some());
        drop(first);
        assert!(slots.take(&worker("a")).is_some());
        drop(second);
        assert!(slots.held.lock().unwrap().is_empty());
    }
}
