//! Counters and histograms in the Prometheus text format.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::{Detail, Event};
use crate::outcome::Outcome;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: String,
    namespace: String,
}

/// The platform's metrics. Labels are bounded: outcome and namespace, never a Worker's name.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    invocations: Family<Ended, Counter>,
    wall: Histogram,
    cpu: Histogram,
    cold: Counter,
    lost: Counter,
    /// Worker processes that are alive.
    pub processes: Gauge,
    /// Processes that were started.
    pub starts: Counter,
    /// Processes that could not be started.
    pub failed_starts: Counter,
    /// Time from asking for a process to its being ready, seconds.
    pub start_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = |first| Histogram::new(exponential_buckets(first, 2.0, 20));
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("cloister")),
            invocations: Family::default(),
            wall: seconds(0.000_05),
            cpu: seconds(0.000_01),
            cold: Counter::default(),
            lost: Counter::default(),
            processes: Gauge::default(),
            starts: Counter::default(),
            failed_starts: Counter::default(),
            start_seconds: seconds(0.000_25),
        };
        {
            let mut registry = metrics.registry.lock().unwrap_or_else(PoisonError::into_inner);
            registry.register("invocations", "Invocations by outcome", metrics.invocations.clone());
            registry.register("invocation_wall_seconds", "Wall time", metrics.wall.clone());
            registry.register("invocation_cpu_seconds", "CPU time", metrics.cpu.clone());
            registry.register(
                "cold_invocations",
                "Invocations that waited for a start",
                metrics.cold.clone(),
            );
            registry.register("lost_events", "Events dropped, too many waited", metrics.lost.clone());
            registry.register("processes", "Live Worker processes", metrics.processes.clone());
            registry.register("starts", "Processes started", metrics.starts.clone());
            registry.register("failed_starts", "Processes not started", metrics.failed_starts.clone());
            registry.register("start_seconds", "Time until ready", metrics.start_seconds.clone());
        }
        metrics
    }
}

impl Metrics {
    /// Counts events; those of one outcome and namespace are added up first, as a look-up by label costs
    /// more than all the rest.
    pub(super) fn count(&self, events: &[Event]) {
        let mut ended: HashMap<(Outcome, Option<&str>), u64, foldhash::quality::RandomState> =
            HashMap::default();
        let mut cold = 0;
        for event in events {
            let Detail::Invocation(invocation) = &event.detail else { continue };
            *ended.entry((invocation.outcome, event.worker.namespace.as_deref())).or_default() += 1;
            self.wall.observe(seconds(invocation.wall_us));
            self.cpu.observe(seconds(invocation.cpu_us));
            cold += u64::from(invocation.cold);
        }
        self.cold.inc_by(cold);
        for ((outcome, namespace), count) in ended {
            let namespace = namespace.unwrap_or_default().to_owned();
            let ended = Ended { outcome: format!("{outcome:?}"), namespace };
            self.invocations.get_or_create(&ended).inc_by(count);
        }
    }

    pub(super) fn dropped(&self, count: u64) {
        if count > 0 {
            self.lost.inc_by(count);
        }
    }

    /// All metrics in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner));
        text
    }
}

#[allow(clippy::cast_precision_loss)] // microseconds of a request: far below 2^52
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}
