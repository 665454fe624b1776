//! The last events of each Worker.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Event;
use crate::registry::WorkerId;

/// Events kept of one Worker.
const EACH: usize = 256;

/// Workers whose events are kept.
const WORKERS: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent {
    workers: HashMap<WorkerId, VecDeque<Arc<Event>>, foldhash::quality::RandomState>,
    /// In order of their first event; the oldest is forgotten for a new one.
    order: VecDeque<WorkerId>,
    /// Events being processed; empty but for its room.
    pub(super) batch: Vec<Event>,
}

impl Recent {
    pub(super) fn push(&mut self, event: Arc<Event>) {
        if let Some(events) = self.workers.get_mut(&event.worker) {
            if events.len() >= EACH {
                events.pop_front();
            }
            events.push_back(event);
            return;
        }
        if self.order.len() >= WORKERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.workers.remove(&oldest);
        }
        let worker = event.worker.clone();
        self.order.push_back(worker.clone());
        self.workers.insert(worker, VecDeque::from([event]));
    }

    pub(super) fn of(&self, worker: &WorkerId) -> Vec<Arc<Event>> {
        self.workers.get(worker).map(|events| events.iter().cloned().collect()).unwrap_or_default()
    }
}
