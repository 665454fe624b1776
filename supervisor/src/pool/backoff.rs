//! How long a Worker that does not start, or dies at once, is left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::second::Second;

/// Wait after the first failure that is not forgiven; it doubles with each.
const FIRST: Duration = Duration::from_millis(250);

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row of one Worker's version.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Instant>,
    reason: Option<Arc<str>>,
}

impl Backoff {
    /// Notes a failure. The first `forgiven` in a row are forgiven: the next request may try again.
    pub(super) fn failed(&mut self, now: Instant, reason: Arc<str>, forgiven: u32) {
        self.failures = self.failures.saturating_add(1);
        self.reason = Some(reason);
        let wait = match self.failures.checked_sub(forgiven + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST),
        };
        self.until = Some(now + wait);
    }

    /// Forgets all failures.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// How long it is still left alone, and why.
    pub(super) fn waits(&self, now: Instant) -> Option<(Duration, Arc<str>)> {
        let left = self.until?.checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some((left, self.reason.clone()?))
    }

    /// Why the last start failed.
    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.reason.clone()
    }
}

/// Starts of one Worker within a second: one that answers and ends, over and over, is started no faster, as
/// every start costs the launcher, and all others, a little.
#[derive(Debug, Default)]
pub(super) struct Starts(Second);

/// Starts of one Worker in a second.
const STARTS_A_SECOND: u32 = 100;

impl Starts {
    /// Takes a start; how long it has to wait.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        if self.0.takes(now, STARTS_A_SECOND) { Duration::ZERO } else { self.0.left(now) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_spread_over_seconds() {
        let (mut starts, now) = (Starts::default(), Instant::now());
        for _ in 0..STARTS_A_SECOND {
            assert_eq!(starts.take(now), Duration::ZERO);
        }
        assert_eq!(starts.take(now + Duration::from_millis(300)), Duration::from_millis(700));
        assert_eq!(starts.take(now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        assert!(backoff.waits(now).is_none());
        backoff.failed(now, "no".into(), 1);
        assert!(backoff.waits(now).is_none(), "one failure is forgiven");
        backoff.failed(now, "no".into(), 1);
        assert_eq!(backoff.waits(now).unwrap().0, FIRST);
        backoff.failed(now, "no".into(), 1);
        assert_eq!(backoff.waits(now).unwrap().0, 2 * FIRST);
        for _ in 0..100 {
            backoff.failed(now, "no".into(), 1);
        }
        assert_eq!(backoff.waits(now).unwrap().0, LONGEST);
        backoff.worked();
        assert!(backoff.waits(now).is_none() && backoff.reason().is_none());
    }
}
