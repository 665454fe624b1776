//! How much one may hold at a time of what is there for several.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is held by each `Holder`.
#[derive(Debug)]
pub(crate) struct Slots<Holder: Eq + Hash + Clone> {
    each: u32,
    held: Mutex<HashMap<Holder, u32>>,
}

/// One thing held, until dropped.
#[derive(Debug)]
pub(crate) struct Slot<Holder: Eq + Hash + Clone> {
    holder: Holder,
    slots: Arc<Slots<Holder>>,
}

impl<Holder: Eq + Hash + Clone> Slots<Holder> {
    /// At most `each` for every one.
    pub(crate) fn new(each: u32) -> Arc<Self> {
        Arc::new(Self { each, held: Mutex::default() })
    }

    /// The most that one may hold.
    pub(crate) fn each(&self) -> u32 {
        self.each
    }

    /// One more for `holder`, unless it holds as many as it may.
    pub(crate) fn take(self: &Arc<Self>, holder: Holder) -> Option<Slot<Holder>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&holder) {
            Some(count) if *count >= self.each => return None,
            Some(count) => *count += 1,
            None => drop(held.insert(holder.clone(), 1)),
        }
        Some(Slot { holder, slots: Arc::clone(self) })
    }
}

impl<Holder: Eq + Hash + Clone> Drop for Slot<Holder> {
    fn drop(&mut self) {
        let mut held = self.slots.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.holder) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn each_has_its_own() {
        let slots = Slots::new(2);
        let first = slots.take("a").unwrap();
        let second = slots.take("a").unwrap();
        assert!(slots.take("a").is_none());
        assert!(slots.take("b").is_some());
        drop(first);
        assert!(slots.take("a").is_some());
        drop(second);
        assert!(slots.held.lock().unwrap().is_empty());
    }
}
