//! How much of the supervisor one [`Payer`] may hold at a time: each thing held costs descriptors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::caller::Payer;

/// Counts what is held.
#[derive(Debug)]
pub(super) struct Slots {
    each: u32,
    held: Mutex<HashMap<Payer, u32>>,
}

/// One thing held, until dropped.
#[derive(Debug)]
pub(super) struct Slot {
    payer: Payer,
    slots: Arc<Slots>,
}

impl Slots {
    /// At most `each` for every one.
    pub(super) fn new(each: u32) -> Arc<Self> {
        Arc::new(Self { each, held: Mutex::default() })
    }

    /// The most that one may hold.
    pub(super) fn each(&self) -> u32 {
        self.each
    }

    /// One more for `payer`, unless it holds as many as it may.
    pub(super) fn take(self: &Arc<Self>, payer: Payer) -> Option<Slot> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&payer) {
            Some(count) if *count >= self.each => return None,
            Some(count) => *count += 1,
            None => drop(held.insert(payer.clone(), 1)),
        }
        Some(Slot { payer, slots: Arc::clone(self) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.slots.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.payer) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.payer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::WorkerId;

    #[test]
    fn each_has_its_own() {
        let slots = Slots::new(2);
        let id = |name: &str| WorkerId { namespace: None, name: name.into() };
        let worker = |name: &str| Payer { worker: id(name), on_behalf_of: None };
        let first = slots.take(worker("a")).unwrap();
        let second = slots.take(worker("a")).unwrap();
        assert!(slots.take(worker("a")).is_none());
        assert!(slots.take(worker("b")).is_some());
        assert!(slots.take(Payer { on_behalf_of: Some(id("c")), ..worker("a") }).is_some());
        drop(first);
        assert!(slots.take(worker("a")).is_some());
        drop(second);
        assert!(slots.held.lock().unwrap().is_empty());
    }
}
