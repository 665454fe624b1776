//! `requests_per_second` of rules, for each [`Payer`] by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloister_policies::egress::Rule;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use super::caller::Payer;
use super::folder::Loaded;

/// A limiter unused for so long is as good as new, since a burst is a second's worth.
const REFILLED: Duration = Duration::from_secs(1);
/// Limiters kept before those that are as good as new are thrown out.
const MANY: usize = 4096;

/// Who, policy, rule.
type Key = (Payer, u64, std::sync::Arc<str>);

#[derive(Debug, Default)]
pub(super) struct Rates(Mutex<HashMap<Key, (Instant, DefaultDirectRateLimiter)>>);

impl Rates {
    /// Whether `payer` may make one more request by `rule` now.
    pub(super) fn allow(&self, payer: impl FnOnce() -> Payer, loaded: &Loaded, rule: &Rule) -> bool {
        let Some(limit) = rule.requests_per_second else { return true };
        let mut limiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if limiters.len() >= MANY {
            limiters.retain(|_, (used, _)| now.duration_since(*used) < REFILLED);
        }
        let key = (payer(), loaded.id, rule.name.clone());
        let (used, limiter) =
            limiters.entry(key).or_insert_with(|| (now, RateLimiter::direct(Quota::per_second(limit))));
        *used = now;
        limiter.check().is_ok()
    }
}
