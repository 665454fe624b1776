//! What happened: one record an invocation, the Workers' own output, and counters.
//!
//! A request's thread only appends to a bounded list; a task of the control plane turns the list
//! into log lines, metrics and the recent events of each Worker.

mod event;
mod metrics;
mod output;
mod recent;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;

pub use event::{Detail, Event, Invocation};
pub use metrics::Metrics;
pub use output::{LineReader, capture};

use crate::registry::WorkerId;
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
    followers: broadcast::Sender<Arc<Event>>,
    metrics: Metrics,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self(Arc::new(Inner {
            waiting: Mutex::default(),
            dropped: AtomicU64::new(0),
            recent: Mutex::default(),
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
        for event in batch.drain(..) {
            event.log();
            let event = Arc::new(event);
            if followed {
                // The last follower may have gone meanwhile.
                let _ = self.0.followers.send(Arc::clone(&event));
            }
            recent.push(event);
        }
        batch.shrink_to(KEPT);
        recent.batch = batch;
    }

    /// The last events of a Worker, oldest first.
    #[must_use]
    pub fn recent(&self, worker: &WorkerId) -> Vec<Arc<Event>> {
        self.process();
        self.0.recent.lock().unwrap_or_else(PoisonError::into_inner).of(worker)
    }

    /// All events from now on; filter by [`Event::worker`]. Event and invocation order is kept.
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
