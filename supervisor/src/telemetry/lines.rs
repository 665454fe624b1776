//! Log lines of invocations that failed, bounded: whoever makes requests fail would fill the operator's log.

use std::collections::HashMap;
use std::time::Instant;

use super::{Detail, Event};
use crate::outcome::Outcome;
use crate::registry::WorkerId;
use crate::second::Second;

/// Lines in a second of one Worker, and of all requests together that reach none.
const A_SECOND: u32 = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<Option<WorkerId>, Second, foldhash::quality::RandomState>);

impl Lines {
    /// Writes the event's line, unless there are too many of its kind.
    pub(super) fn write(&mut self, event: &Event, now: Instant) {
        if self.takes(event, now) {
            event.log();
        }
    }

    fn takes(&mut self, event: &Event, now: Instant) -> bool {
        match &event.detail {
            Detail::Invocation(ended) if !matches!(ended.outcome, Outcome::Ok | Outcome::Canceled) => {
                let worker = event.is_of_a_worker().then(|| event.worker.clone());
                self.0.entry(worker).or_default().takes(now, A_SECOND)
            }
            // These are for whoever asked for all of them, or bounded where they come from.
            _ => true,
        }
    }

    /// Tells how many lines were left out in seconds that are over, and forgets these.
    pub(super) fn tell(&mut self, now: Instant) {
        self.over(now, |worker, left_out| match worker {
            Some(worker) => {
                tracing::info!(target: "cloister::invocation", %worker, left_out, "more failed, not written down");
            }
            None => {
                tracing::info!(target: "cloister::invocation", left_out, "more reached no Worker, not written down");
            }
        });
    }

    fn over(&mut self, now: Instant, mut each: impl FnMut(Option<&WorkerId>, u64)) {
        self.0.retain(|worker, second| {
            let over = second.is_over(now);
            let left_out = if over { second.left_out() } else { 0 };
            if left_out > 0 {
                each(worker.as_ref(), left_out);
            }
            !over
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::tests::ended;

    #[test]
    fn so_many_lines_of_one_worker_and_of_all_that_do_not_exist() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        let mut written = |name: &str, version: &str| {
            (0..1000).filter(|_| lines.takes(&ended(name, version, Outcome::Exception), now)).count()
        };
        assert_eq!((written("a", "1"), written("b", "1")), (100, 100), "each has its own");
        assert_eq!((written("none", ""), written("nobody", "")), (100, 0), "these have theirs together");
        assert!(lines.takes(&ended("a", "1", Outcome::Ok), now));
        let mut told = Vec::new();
        lines.over(now, |_, _| panic!("the second is not over"));
        lines.over(now + Duration::from_secs(1), |worker, left_out| {
            told.push((worker.map(ToString::to_string), left_out));
        });
        told.sort();
        assert_eq!(told, [(None, 1900), (Some("a".to_owned()), 900), (Some("b".to_owned()), 900)]);
        assert!(lines.0.is_empty());
    }
}
