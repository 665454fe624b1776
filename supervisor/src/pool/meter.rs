//! CPU time of invocations that share a process.
//!
//! The kernel tells the CPU time of the whole process. Between two readings it is split equally
//! among the invocations in flight, by a running sum of shares: an invocation's time is the sum at
//! its end less the sum at its start. With one in flight at a time this is exact.

use std::time::Instant;

/// All times in nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: u64,
    shares: u64,
    in_flight: u64,
    idle: u64,
    /// When the last reading was taken.
    pub(super) read_at: Option<Instant>,
}

impl Meter {
    fn sample(&mut self, now: u64) {
        let spent = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        match spent.checked_div(self.in_flight) {
            Some(share) => self.shares += share,
            None => self.idle += spent,
        }
    }

    /// An invocation begins; returns its mark.
    pub(super) fn enter(&mut self, now: u64) -> u64 {
        self.sample(now);
        self.in_flight += 1;
        self.shares
    }

    /// Time used since `mark`.
    pub(super) fn used(&mut self, now: u64, mark: u64) -> u64 {
        self.sample(now);
        self.shares.saturating_sub(mark)
    }

    /// The invocation with this mark ends; returns the time it used.
    pub(super) fn leave(&mut self, now: u64, mark: u64) -> u64 {
        let used = self.used(now, mark);
        self.in_flight = self.in_flight.saturating_sub(1);
        used
    }

    /// More than one invocation is in flight.
    pub(super) fn is_shared(&self) -> bool {
        self.in_flight > 1
    }

    /// The last reading.
    pub(super) fn last(&self) -> u64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::Meter;

    #[test]
    fn alone_is_exact_and_together_is_split() {
        let mut meter = Meter::default();
        let a = meter.enter(100);
        assert_eq!(meter.used(150, a), 50);
        let b = meter.enter(160);
        assert_eq!(meter.used(260, a), 110);
        assert_eq!(meter.leave(260, b), 50);
        assert_eq!(meter.leave(300, a), 150);
        let c = meter.enter(1000);
        assert_eq!(meter.leave(1007, c), 7, "what was used between requests is nobody's");
        assert_eq!(meter.idle, 800);
    }

    #[test]
    fn a_clock_that_went_back_costs_nothing() {
        let mut meter = Meter::default();
        let a = meter.enter(100);
        assert_eq!(meter.leave(50, a), 0);
    }
}
