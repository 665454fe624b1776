//! What happened: one record an invocation, the Workers' own output, and counters.
//!
//! A request's thread only appends to a bounded list; a task of the control plane turns the list
//! into log lines, metrics and the recent events of each Worker.

mod event;
mod lines;
mod metrics;
mod output;
mod recent;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

pub use event::{Detail, Event, Invocation};
pub use metrics::Metrics;
pub use output::{LineReader, capture};

use crate::registry::WorkerId;
use lines::Lines;
use recent::Recent;

/// Events that may wait to be processed; beyond it they are counted and dropped.
const WAITING: usize = 1 << 16;

/// Events for which room is kept between batches.
const KEPT: usize = 1 << 14;

/// How often waiting events are processed.
const INTERVAL: Duration = Duration::from_millis(100);

/// Events a slow follower may lag behind.
const FOLLOWERS: usize = 1024;

/// The handle; cheap to clone.
#[derive(Debug, Clone)]
pub struct Telemetry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Vec<Event>>,
    dropped: AtomicU64,
    recent: Mutex<Recent>,
    lines: Mutex<Lines>,
    followers: broadcast::Sender<Arc<Event>>,
    metrics: Metrics,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self(Arc::new(Inner {
            waiting: Mutex::default(),
            dropped: AtomicU64::new(0),
            recent: Mutex::default(),
            lines: Mutex::default(),
            followers: broadcast::channel(FOLLOWERS).0,
            metrics: Metrics::default(),
        }))
    }
}

impl Telemetry {
    /// Takes an event; never waits.
    pub fn record(&self, event: Event) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(event);
        } else {
            drop(waiting);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Processes waiting events for ever; run it once, on the control plane's runtime.
    pub async fn run(self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.process();
        }
    }

    /// Processes what waits now.
    pub fn process(&self) {
        let mut recent = self.0.recent.lock().unwrap_or_else(PoisonError::into_inner);
        // The lists change places, so that neither grows anew for every batch.
        std::mem::swap(
            &mut recent.batch,
            &mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner),
        );
        let dropped = self.0.dropped.swap(0, Ordering::Relaxed);
        self.0.metrics.dropped(dropped);
        let mut batch = std::mem::take(&mut recent.batch);
        self.0.metrics.count(&batch);
        let followed = self.0.followers.receiver_count() > 0;
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for event in batch.drain(..) {
            lines.write(&event, now);
            let event = Arc::new(event);
            if followed && event.is_of_a_worker() {
                // The last follower may have gone meanwhile.
                let _ = self.0.followers.send(Arc::clone(&event));
            }
            recent.push(event);
        }
        lines.tell(now);
        batch.shrink_to(KEPT);
        recent.batch = batch;
    }

    /// The last events of a Worker, oldest first; none of one that does not exist.
    #[must_use]
    pub fn recent(&self, worker: &WorkerId) -> Vec<Arc<Event>> {
        self.process();
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner).of(worker)
    }

    /// All events of Workers from now on; filter by [`Event::worker`]. Event and invocation order is kept.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.followers.subscribe()
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::outcome::Outcome;

    /// An invocation that ended so; of no Worker when there is no `version`.
    pub(super) fn ended(name: &str, version: &str, outcome: Outcome) -> Event {
        let invocation = Invocation {
            ray: "ray".into(),
            outcome,
            error: None,
            reason: None,
            status: None,
            cpu_us: 0,
            wall_us: 0,
            request_bytes: 0,
            response_bytes: 0,
            subrequests: 0,
            depth: 0,
            via: None,
            cold: false,
        };
        Event {
            time: SystemTime::UNIX_EPOCH,
            worker: WorkerId { namespace: None, name: name.into() },
            version: version.into(),
            detail: Detail::Invocation(invocation),
        }
    }
}
