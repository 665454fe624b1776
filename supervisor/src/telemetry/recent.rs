//! The last events of each Worker.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Event;
use crate::registry::WorkerId;

/// Events kept of one Worker.
const EACH: usize = 256;

/// Workers whose events are kept.
const WORKERS: usize = 4096;

/// Workers that are forgotten at a time, when there are too many: to find them is a walk over all.
const FORGOTTEN: usize = WORKERS / 8;

/// See the module. Names that no Worker has, which any client can make up, take nobody's place.
#[derive(Debug, Default)]
pub(super) struct Recent {
    workers: HashMap<WorkerId, Events, foldhash::quality::RandomState>,
    /// Counts all events.
    clock: u64,
    /// Events being processed; empty but for its room.
    pub(super) batch: Vec<Event>,
}

/// Those of one Worker.
#[derive(Debug, Default)]
struct Events {
    kept: VecDeque<Arc<Event>>,
    /// The clock at the last of them.
    last: u64,
}

impl Recent {
    pub(super) fn push(&mut self, event: Arc<Event>) {
        if !event.is_of_a_worker() {
            return;
        }
        self.clock += 1;
        if !self.workers.contains_key(&event.worker) {
            if self.workers.len() >= WORKERS {
                self.forget();
            }
            self.workers.insert(event.worker.clone(), Events::default());
        }
        let Some(events) = self.workers.get_mut(&event.worker) else { return };
        if events.kept.len() >= EACH {
            events.kept.pop_front();
        }
        events.last = self.clock;
        events.kept.push_back(event);
    }

    /// Forgets the Workers of which nothing was heard for longest.
    fn forget(&mut self) {
        let mut times: Vec<_> = self.workers.values().map(|events| events.last).collect();
        let (_, until, _) = times.select_nth_unstable(FORGOTTEN);
        let until = *until;
        self.workers.retain(|_, events| events.last >= until);
    }

    pub(super) fn of(&self, worker: &WorkerId) -> Vec<Arc<Event>> {
        self.workers.get(worker).map(|events| events.kept.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;
    use crate::telemetry::tests::ended;

    fn push(recent: &mut Recent, name: &str, version: &str) -> usize {
        let event = Arc::new(ended(name, version, Outcome::Exception));
        let worker = event.worker.clone();
        recent.push(event);
        recent.of(&worker).len()
    }

    #[test]
    fn names_that_nobody_has_take_no_place() {
        let mut recent = Recent::default();
        assert_eq!(push(&mut recent, "here", "1"), 1);
        for number in 0..2 * WORKERS {
            assert_eq!(push(&mut recent, &number.to_string(), ""), 0);
        }
        assert_eq!(push(&mut recent, "here", "1"), 2);
    }

    #[test]
    fn the_worker_that_is_forgotten_is_the_one_of_which_nothing_was_heard() {
        let mut recent = Recent::default();
        push(&mut recent, "first", "1");
        push(&mut recent, "silent", "1");
        for number in 2..WORKERS {
            push(&mut recent, &number.to_string(), "1");
        }
        assert_eq!(push(&mut recent, "first", "1"), 2);
        assert_eq!(push(&mut recent, "one more", "1"), 1);
        assert_eq!(recent.workers.len(), WORKERS - FORGOTTEN + 1);
        assert_eq!(push(&mut recent, "first", "1"), 3);
        assert_eq!(push(&mut recent, "silent", "1"), 1);
        for _ in 0..2 * EACH {
            push(&mut recent, "first", "1");
        }
        assert_eq!(push(&mut recent, "first", "1"), EACH);
    }
}
