//! One call of one Worker: whose it is, what it may use, what it used, how it ended.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use cloister_ipc::borrowed::Context;
use cloister_ipc::worker::{FetchError, Target};
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};

use super::cut::Cut;
use super::{Dispatcher, Hop};
use crate::body::Body;
use crate::egress::{Budget, Caller as EgressCaller};
use crate::limits::Limits;
use crate::outcome::{Failure, Outcome};
use crate::pool::{Fate, Instance, Ticket, Watch, Watched};
use crate::telemetry::{self, Detail, Event};
use crate::worker::Caller;

/// Shortest time between two looks at an invocation.
const SHORTEST: Duration = Duration::from_millis(1);

/// In a tunnel, the CPU limit counts anew after this time.
const TUNNEL_WINDOW: Duration = Duration::from_secs(1);

/// How an invocation failed.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    pub(super) failure: Failure,
    /// For the Worker's owner.
    pub(super) reason: String,
}

/// See the module. It ends, and is recorded, when it is dropped: after the response's last byte and
/// after its `wait_until` work.
pub struct Invocation {
    pub(super) hop: Arc<Hop>,
    pub(super) instance: Arc<Instance>,
    pub(super) limits: Limits,
    pub(super) budget: Arc<Budget>,
    dispatcher: Arc<Dispatcher>,
    started: Instant,
    mark: u64,
    cold: bool,
    window: AtomicU64,
    tunnel: AtomicBool,
    settled: AtomicBool,
    whole: AtomicBool,
    unrecorded: AtomicBool,
    exhausted: AtomicBool,
    callee: Mutex<Option<Failure>>,
    status: AtomicU16,
    pub(super) request_bytes: AtomicU64,
    pub(super) response_bytes: AtomicU64,
    /// The request's body is asked for, and whoever sends it does not go on.
    pub(super) awaits_body: AtomicBool,
    /// The answer's body waits for whoever reads it.
    pub(super) awaits_reader: AtomicBool,
    /// Over its wall time by its reader's fault: the answer ends at the next read.
    pub(super) overdue: AtomicBool,
    /// Told when the call is to be given up.
    pub(super) cut: Cut,
    wall: AtomicU64,
    verdict: OnceLock<Verdict>,
    ticket: OnceLock<Ticket>,
}

impl std::fmt::Debug for Invocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invocation").field("hop", &self.hop).finish_non_exhaustive()
    }
}

impl Invocation {
    /// Begins an invocation in a process.
    pub(super) fn begin(
        dispatcher: Arc<Dispatcher>,
        hop: Arc<Hop>,
        instance: Arc<Instance>,
        limits: Limits,
        budget: &Arc<Budget>,
        cold: bool,
    ) -> Arc<Self> {
        let started = Instant::now();
        let mark = instance.enter(started);
        crate::worker::ipc::flush::tick(started);
        let invocation = Arc::new(Self {
            hop,
            instance,
            limits,
            budget: Arc::clone(budget),
            dispatcher,
            started,
            mark,
            cold,
            window: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            whole: AtomicBool::new(false),
            unrecorded: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
            callee: Mutex::default(),
            status: AtomicU16::new(0),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            awaits_body: AtomicBool::new(false),
            awaits_reader: AtomicBool::new(false),
            overdue: AtomicBool::new(false),
            cut: Cut::default(),
            wall: AtomicU64::new(0),
            verdict: OnceLock::new(),
            ticket: OnceLock::new(),
        });
        if let Some(due) = invocation.due(started, Duration::ZERO) {
            let weak: Weak<dyn Watched> = Arc::downgrade(&invocation) as Weak<dyn Watched>;
            let _ = invocation.ticket.set(Watch::local().add(weak, due));
        }
        invocation
    }

    /// When to look again, `used` CPU time after its start.
    fn due(&self, now: Instant, used: Duration) -> Option<Instant> {
        let percent = self.instance.deployed.resources.cpu_percent.max(100);
        let cpu = self.limits.cpu().map(|limit| {
            let left = limit.saturating_sub(used).max(SHORTEST);
            // Several cores use a budget up faster than the clock runs.
            now + (left * 100 / percent).max(SHORTEST)
        });
        let wall = self.limits.wall().filter(|_| self.has_wall_limit());
        let wall = wall.map(|limit| (self.started + limit).max(now + SHORTEST));
        match (cpu, wall) {
            (Some(cpu), Some(wall)) => Some(cpu.min(wall)),
            (cpu, wall) => cpu.or(wall),
        }
    }

    /// Its wall time is still to be looked at.
    fn has_wall_limit(&self) -> bool {
        !self.settled.load(Ordering::Relaxed) && !self.overdue.load(Ordering::Relaxed)
    }

    /// Fails the invocation; the first reason stays. True when this was the first.
    pub(super) fn fail(&self, outcome: Outcome, failure: Failure, reason: impl Into<String>) -> bool {
        self.verdict.set(Verdict { outcome, failure, reason: reason.into() }).is_ok()
    }

    pub(super) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.get()
    }

    /// True when a subrequest was refused.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// A Worker that this one called failed.
    pub(super) fn callee_failed(&self, failure: Failure) {
        *self.callee.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    /// How the last Worker that this one called failed: what the client is told, when this one gives
    /// up for it.
    pub(super) fn callee_failure(&self) -> Option<Failure> {
        *self.callee.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Worker answered.
    pub(super) fn answered(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    /// The answer's last byte was read; `wait_until` work may go on.
    pub(super) fn settle(&self, whole: bool) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.whole.store(whole, Ordering::Relaxed);
            let wall = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.wall.store(wall, Ordering::Relaxed);
        }
    }

    /// The answer is a tunnel: no wall limit, and the CPU limit counts anew every second.
    pub(super) fn tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
        self.settle(true);
    }

    /// It never happened: the request goes to another process.
    pub(super) fn forget(&self) {
        self.unrecorded.store(true, Ordering::Relaxed);
    }

    /// CPU and wall time so far.
    pub(super) fn spent(&self) -> (Duration, Duration) {
        (self.instance.used(self.mark), self.started.elapsed())
    }

    /// Who its outgoing requests are from.
    pub(super) fn egress_caller(&self) -> EgressCaller {
        self.hop.egress_caller(&self.instance.deployed, &self.budget)
    }

    fn exceeded(&self, outcome: Outcome, failure: Failure, what: &'static str, reason: String) {
        if self.fail(outcome, failure, reason) {
            self.instance.kill(Fate::Limit(what));
        }
    }
}

impl Watched for Invocation {
    fn check(&self, now: Instant) -> Option<Instant> {
        if self.verdict.get().is_some() {
            return None;
        }
        if let Some(limit) = self.limits.wall()
            && self.has_wall_limit()
            && now >= self.started + limit
        {
            // A sender or a reader that hangs is not the Worker's fault: others' requests in the
            // process go on, and so does the CPU limit of this one.
            let answered = self.status.load(Ordering::Relaxed) != 0;
            if answered && self.awaits_reader.load(Ordering::Relaxed) {
                self.overdue.store(true, Ordering::Relaxed);
                return self.due(now, self.instance.used(self.mark));
            }
            if !answered && self.awaits_body.load(Ordering::Relaxed) {
                let reason = format!("no whole request after {} ms", limit.as_millis());
                if self.fail(Outcome::ExceededWallTime, Failure::ExceededWallTime, reason) {
                    self.cut.cut();
                }
                return None;
            }
            let reason = format!("no whole answer after {} ms", limit.as_millis());
            self.exceeded(Outcome::ExceededWallTime, Failure::ExceededWallTime, "wall time", reason);
            return None;
        }
        let Some(limit) = self.limits.cpu() else { return self.due(now, Duration::ZERO) };
        let total = self.instance.used(self.mark);
        let window = Duration::from_nanos(self.window.load(Ordering::Relaxed));
        let used = total.saturating_sub(window);
        if used >= limit {
            let reason = format!("used {} of {} ms CPU time", used.as_millis(), limit.as_millis());
            self.exceeded(Outcome::ExceededCpu, Failure::ExceededResources, "CPU time", reason);
            return None;
        }
        if self.tunnel.load(Ordering::Relaxed) {
            self.window.store(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            return Some(now + limit.max(TUNNEL_WINDOW));
        }
        self.due(now, used)
    }
}

impl Caller for Invocation {
    fn fetch(
        self: Arc<Self>,
        target: Target,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
        Box::pin(async move {
            let result = Arc::clone(&self.dispatcher).fetch(&self, target, request).await;
            if matches!(result, Err(FetchError::Subrequests)) {
                self.exhausted.store(true, Ordering::Relaxed);
            }
            result
        })
    }

    fn refuse(self: Arc<Self>, reason: String) -> BoxFuture<'static, FetchError> {
        Box::pin(async move {
            let error = match self.budget.take() {
                Ok(()) => FetchError::Invalid(reason),
                Err(_) => {
                    self.exhausted.store(true, Ordering::Relaxed);
                    FetchError::Subrequests
                }
            };
            self.dispatcher.pace(&self).await;
            error
        })
    }

    fn context(&self) -> Context<'_> {
        Context {
            ray: &self.hop.ray,
            client: &self.hop.client,
            args: &self.hop.args,
            outbound: self.hop.as_outbound.clone(),
        }
    }

    fn egress(&self) -> EgressCaller {
        self.egress_caller()
    }
}

impl Drop for Invocation {
    fn drop(&mut self) {
        let now = Instant::now();
        let cpu = self.instance.leave(self.mark, now);
        self.instance.forget_caller(std::ptr::from_ref(self).cast());
        if *self.unrecorded.get_mut() {
            return;
        }
        self.settle(false);
        let verdict = self.verdict.take();
        let (outcome, error, reason) = match verdict {
            Some(verdict) => (verdict.outcome, Some(verdict.failure), Some(verdict.reason)),
            None if *self.whole.get_mut() => (Outcome::Ok, None, None),
            None => (Outcome::Canceled, None, None),
        };
        let status = *self.status.get_mut();
        let deployed = &self.instance.deployed;
        self.dispatcher.telemetry.record(Event {
            time: SystemTime::now(),
            worker: deployed.id.clone(),
            version: Arc::clone(&deployed.version),
            detail: Detail::Invocation(telemetry::Invocation {
                ray: Arc::clone(&self.hop.ray),
                outcome,
                error,
                reason,
                status: (status != 0).then_some(status),
                cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
                wall_us: *self.wall.get_mut(),
                request_bytes: *self.request_bytes.get_mut(),
                response_bytes: *self.response_bytes.get_mut(),
                subrequests: self.budget.used(),
                depth: self.hop.depth,
                via: self.hop.via.clone(),
                cold: self.cold,
            }),
        });
    }
}
