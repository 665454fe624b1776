//! What was decided: a line in the log and a place among the recent ones, for each request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cloister_policies::egress::{DEFAULT_RULE, Verdict};

use super::caller::Payer;
use super::kept::Kept;
use super::{Caller, EgressError};
use crate::second::Second;
use crate::slots::Slot;

/// Counts of refusals kept before those that are over are thrown out.
const MANY: usize = 1024;
/// Refusals of one [`Payer`] that are written down in a second.
const REFUSALS_A_SECOND: u32 = 100;
/// Characters of a path that are kept.
const PATH_CHARS: usize = 512;

/// A decision and what came of it.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Decision {
    /// When it was made, milliseconds since 1970.
    pub time_ms: u64,
    /// The client's request on whose behalf.
    pub ray: Arc<str>,
    /// The Worker that asked.
    pub worker: String,
    /// For whom it asked, when it is an outbound Worker.
    pub on_behalf_of: Option<String>,
    /// The rule that decided; `default` when none matched.
    pub rule: String,
    /// `allow`, `deny`, `outbound`, or `report` (would have been denied).
    pub verdict: &'static str,
    /// Host asked for.
    pub host: String,
    /// Port asked for.
    pub port: u16,
    /// The address that was dialled.
    pub addr: Option<IpAddr>,
    /// Method.
    pub method: String,
    /// Path without query, in the form that was judged; empty for CONNECT.
    pub path: String,
    /// Status of the response.
    pub status: Option<u16>,
    /// Bytes of the response's body that were passed on.
    pub bytes: u64,
    /// From the question to the end of the response's body, milliseconds.
    pub ms: u64,
    /// Why it was denied or failed.
    pub reason: Option<String>,
}

/// The recent decisions.
#[derive(Debug, Default)]
pub(super) struct Journal {
    kept: Mutex<Kept>,
    refusals: Mutex<HashMap<Payer, Second>>,
}

impl Journal {
    /// The recent decisions for those of whom `whose` takes, oldest first.
    pub(super) fn recent(&self, whose: impl Fn(&Payer) -> bool) -> Vec<Decision> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).list(whose)
    }

    /// How long `payer` waits for the answer to a request that came to nothing: its refusals cost others' time,
    /// and it nothing.
    pub(super) fn pause(&self, payer: &Payer, now: Instant) -> Option<Duration> {
        let all = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refusals = all.get(payer).filter(|refusals| refusals.is_used_up(REFUSALS_A_SECOND))?;
        Some(refusals.left(now)).filter(|left| !left.is_zero())
    }

    /// Whether one more refusal of `payer` is written down, and how many were not since the last that was:
    /// what is refused costs it nothing, and the log is everybody's.
    pub(super) fn takes_refusal(&self, payer: &Payer, now: Instant) -> Option<u64> {
        let mut all = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(payer) && all.len() >= MANY {
            all.retain(|_, refusals| !refusals.is_over(now));
        }
        let refusals = all.entry(payer.clone()).or_default();
        refusals.takes(now, REFUSALS_A_SECOND).then(|| refusals.left_out())
    }
}

/// The first `most` characters of `text`.
fn begin(text: &str, most: usize) -> String {
    // Hardly any is longer, and to count characters costs more than to copy them.
    if text.len() <= most { text.to_owned() } else { text.chars().take(most).collect() }
}

/// A decision in the making; it is written down when dropped, so that none is lost when the Worker
/// goes away in the middle.
#[derive(Debug)]
pub(super) struct Entry {
    decision: Decision,
    payer: Payer,
    log: bool,
    /// Given back when the request is over.
    slot: Option<Slot<Payer>>,
    began: Instant,
    journal: Arc<Journal>,
}

impl Entry {
    pub(super) fn new(journal: &Arc<Journal>, caller: &Caller, method: &str, host: &str, port: u16) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let decision = Decision {
            time_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            ray: Arc::clone(&caller.ray),
            worker: caller.worker.to_string(),
            on_behalf_of: caller.on_behalf_of.as_ref().map(ToString::to_string),
            rule: DEFAULT_RULE.into(),
            verdict: "deny",
            host: begin(host, 255),
            port,
            addr: None,
            method: begin(method, 32),
            path: String::new(),
            status: None,
            bytes: 0,
            ms: 0,
            reason: None,
        };
        let payer = caller.payer();
        Self { decision, payer, log: true, slot: None, began: Instant::now(), journal: Arc::clone(journal) }
    }

    /// Holds `slot` as long as the request lasts.
    pub(super) fn hold(&mut self, slot: Slot<Payer>) {
        self.slot = Some(slot);
    }

    pub(super) fn path(&mut self, path: &str) {
        self.decision.path = begin(path, PATH_CHARS);
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict<'_>) {
        self.decision.rule = verdict.rule_name().to_owned();
        self.decision.verdict = if verdict.reported { "report" } else { verdict.decision.as_str() };
        self.decision.reason = verdict.refusal.map(|refusal| refusal.to_string());
        self.log = verdict.log();
    }

    pub(super) fn outbound(&mut self) {
        if self.decision.verdict == "allow" {
            self.decision.verdict = "outbound";
        }
    }

    pub(super) fn address(&mut self, address: IpAddr) {
        self.decision.addr = Some(address);
    }

    pub(super) fn status(&mut self, status: http::StatusCode) {
        self.decision.status = Some(status.as_u16());
    }

    pub(super) fn bytes(&mut self, bytes: u64) {
        self.decision.bytes = self.decision.bytes.saturating_add(bytes);
    }

    /// Writes down that it came to nothing; hands `error` back.
    pub(super) fn failed(&mut self, error: EgressError) -> EgressError {
        if error.is_refusal() {
            self.decision.verdict = "deny";
            self.log = true;
        }
        self.decision.reason = Some(error.to_string());
        error
    }

    /// Writes down that it was refused after it had been allowed.
    pub(super) fn refused(&mut self, reason: String) {
        self.decision.verdict = "deny";
        self.decision.reason = Some(reason);
    }

    /// Writes down why it broke off.
    pub(super) fn broke(&mut self, reason: impl Into<String>) {
        self.decision.reason = Some(reason.into());
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.decision.ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let d = &self.decision;
        if d.verdict == "deny" {
            match self.journal.takes_refusal(&self.payer, Instant::now()) {
                None => return,
                Some(0) => {}
                Some(left_out) => {
                    tracing::warn!(target: "egress", worker = %d.worker, left_out, "more refusals, not written down");
                }
            }
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "egress",
                    worker = %d.worker,
                    on_behalf_of = d.on_behalf_of,
                    ray = %d.ray,
                    rule = %d.rule,
                    verdict = d.verdict,
                    host = %d.host,
                    port = d.port,
                    addr = d.addr.map(tracing::field::display),
                    method = %d.method,
                    path = %d.path,
                    status = d.status,
                    bytes = d.bytes,
                    ms = d.ms,
                    reason = d.reason,
                    "egress decision"
                )
            };
        }
        match (self.log, d.verdict) {
            (_, "deny" | "report") => line!(warn),
            (true, _) => line!(info),
            (false, _) => line!(debug),
        }
        let decision = std::mem::take(&mut self.decision);
        let mut kept = self.journal.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep(self.payer.clone(), decision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::WorkerId;
    use crate::second::SECOND;

    #[test]
    fn refusals_of_one_leave_room_for_others() {
        let (journal, now) = (Journal::default(), Instant::now());
        let id = |name: &str| WorkerId { namespace: None, name: name.into() };
        let a = Payer { worker: id("a"), on_behalf_of: None };
        let b = Payer { on_behalf_of: Some(id("b")), ..a.clone() };
        let written = (0..1000).filter(|_| journal.takes_refusal(&a, now).is_some()).count();
        assert_eq!(written, 100);
        assert_eq!(journal.pause(&a, now), Some(SECOND), "and it waits for the next second");
        assert_eq!(journal.pause(&a, now + 2 * SECOND), None);
        assert_eq!(journal.takes_refusal(&b, now), Some(0));
        assert_eq!(journal.pause(&b, now), None);
        assert_eq!(journal.takes_refusal(&a, now + SECOND), Some(900), "what was left out is told");
        assert_eq!(journal.takes_refusal(&a, now + SECOND), Some(0));
    }
}
