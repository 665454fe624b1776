//! How many of something there were in the second at hand.

use std::time::{Duration, Instant};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Lets so many a second pass and counts the rest. A second begins with the first that is asked for after the last
/// one is over.
#[derive(Debug, Default)]
pub(crate) struct Second {
    since: Option<Instant>,
    passed: u32,
    left_out: u64,
}

impl Second {
    /// Begins a new second if the last is over; true when it does.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        let over = self.is_over(now);
        if over {
            (self.since, self.passed) = (Some(now), 0);
        }
        over
    }

    /// Whether one more passes, of `most` in this second.
    pub(crate) fn takes(&mut self, now: Instant, most: u32) -> bool {
        self.turn(now);
        let passes = !self.is_used_up(most);
        if passes {
            self.passed += 1;
        } else {
            self.leave_out(1);
        }
        passes
    }

    /// Counts some that do not pass.
    pub(crate) fn leave_out(&mut self, count: u64) {
        self.left_out = self.left_out.saturating_add(count);
    }

    /// How many did not pass since this was asked last.
    pub(crate) fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// Whether `most` passed in this second.
    pub(crate) fn is_used_up(&self, most: u32) -> bool {
        self.passed >= most
    }

    /// Whether nothing that was counted is of the present.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.left(now).is_zero()
    }

    /// How long the second still is.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| SECOND.saturating_sub(now.saturating_duration_since(since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_and_the_rest_is_counted_once() {
        let (mut second, now) = (Second::default(), Instant::now());
        assert!(second.is_over(now));
        let passed = (0..10).filter(|_| second.takes(now, 3)).count();
        assert_eq!((passed, second.is_used_up(3)), (3, true));
        assert_eq!(second.left(now + Duration::from_millis(300)), Duration::from_millis(700));
        assert!(!second.takes(now + Duration::from_millis(999), 3));
        assert!(second.takes(now + SECOND, 3));
        assert_eq!((second.left_out(), second.left_out()), (8, 0));
    }
}
