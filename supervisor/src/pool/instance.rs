//! One live process of a Worker's version.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::request::Parts;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::callers::Callers;
use super::meter::Meter;
use super::process::{Ended, Process};
use super::slot::Slot;
use crate::body::Body;
use crate::egress::{Budget, Caller as EgressCaller, OutboundCall};
use crate::registry::{Deployed, WorkerId};
use crate::runtime::shard;
use crate::slots::Slots;
use crate::worker::http::Upstream;
use crate::worker::ipc::{Connection, End, is_gone};
use crate::worker::{Answer, CallError, Caller};

/// How old a reading of the CPU clock may be that invocations at the same time are told apart by.
const FRESH: Duration = Duration::from_micros(50);

/// Why the supervisor ended a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// An invocation exceeded a limit.
    Limit(&'static str),
    /// It broke the protocol.
    Violation(String),
    /// It was not ready in time.
    NotReady(String),
    /// It closed its connection.
    Closed,
    /// Another version took its place, or the Worker was deleted.
    Retired,
    /// It had nothing to do.
    Idle,
    /// Others needed the memory.
    Evicted,
    /// The operator, or the end of the supervisor.
    Killed,
}

/// How requests reach the process.
pub(super) enum Link {
    /// `ipc`: a connection a shard.
    Ipc {
        /// The control socket.
        control: Arc<OwnedFd>,
        /// Connections by shard.
        connections: Box<[Mutex<Option<Arc<Connection>>>]>,
    },
    /// `http`.
    Http(Upstream),
}

/// Calls of one Worker whose answers a process may wait for, by contract. It may have four times as many open in all,
/// so that it takes more than one Worker that does not answer to stop it.
const CALLS_OF_ONE: u32 = 1024;
const HTTP_CALLS_OF_ONE: u32 = 256;

/// See the module.
pub struct Instance {
    /// Number of the process since the supervisor's start.
    pub number: u64,
    /// Its version.
    pub deployed: Arc<Deployed>,
    pub(super) process: Arc<dyn Process>,
    pub(super) slot: Weak<Slot>,
    pub(super) born: Instant,
    pub(super) link: Link,
    pub(super) load: AtomicU32,
    /// Since when it takes no new requests.
    pub(super) draining: OnceLock<Instant>,
    pub(super) last_used: AtomicU64,
    /// Its calls of other Workers whose answers are not over.
    pub(crate) callees: Arc<Slots<WorkerId>>,
    meter: Mutex<Meter>,
    open: AtomicU32,
    calls: AtomicU64,
    connections: AtomicU32,
    served: AtomicBool,
    greeted: AtomicBool,
    fate: OnceLock<Fate>,
    ended: OnceLock<Ended>,
    killed: CancellationToken,
    over: CancellationToken,
    /// Told when one of its connections ended.
    disconnected: Notify,
    callers: Callers,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("worker", &self.deployed.id)
            .field("pid", &self.process.pid())
            .field("fate", &self.fate.get())
            .finish_non_exhaustive()
    }
}

impl Instance {
    pub(super) fn new(
        number: u64,
        deployed: Arc<Deployed>,
        process: Arc<dyn Process>,
        slot: Weak<Slot>,
        link: Link,
        cause: Option<EgressCaller>,
    ) -> Arc<Self> {
        let calls_of_one = match link {
            Link::Ipc { .. } => CALLS_OF_ONE,
            Link::Http(_) => HTTP_CALLS_OF_ONE,
        };
        Arc::new(Self {
            number,
            deployed,
            process,
            slot,
            born: Instant::now(),
            link,
            load: AtomicU32::new(0),
            draining: OnceLock::new(),
            last_used: AtomicU64::new(0),
            meter: Mutex::default(),
            open: AtomicU32::new(0),
            calls: AtomicU64::new(0),
            connections: AtomicU32::new(0),
            served: AtomicBool::new(false),
            greeted: AtomicBool::new(false),
            fate: OnceLock::new(),
            ended: OnceLock::new(),
            killed: CancellationToken::new(),
            over: CancellationToken::new(),
            disconnected: Notify::new(),
            callees: Slots::new(calls_of_one),
            callers: Callers::new(cause),
        })
    }

    /// Sends it a request.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        caller: Arc<dyn Caller>,
    ) -> Result<Answer, CallError> {
        let result = match &self.link {
            Link::Ipc { .. } => match self.connection() {
                Ok(Some(connection)) => connection.call(parts, body, caller).await,
                Ok(None) => Err(CallError::Unsent(body)),
                Err(error) => Err(CallError::Internal(error)),
            },
            // Boxed, or the other contract would pay for the size of its future.
            Link::Http(upstream) => Box::pin(self.call_http(upstream, parts, body, &caller)).await,
        };
        // It takes no requests any more, which its exit has not told yet: the next try is another's.
        if matches!(result, Err(CallError::Unsent(_))) {
            self.kill(Fate::Closed);
        }
        let works = matches!(result, Ok(_) | Err(CallError::Exception(_)));
        if works
            && !self.served.load(Ordering::Relaxed)
            && !self.served.swap(true, Ordering::Relaxed)
            && let Some(slot) = self.slot.upgrade()
        {
            slot.worked();
        }
        result
    }

    async fn call_http(
        &self,
        upstream: &Upstream,
        parts: &Parts,
        body: Body,
        caller: &Arc<dyn Caller>,
    ) -> Result<Answer, CallError> {
        self.callers.add(caller);
        tokio::select! {
            result = upstream.call(&*self.process, parts, body) => result.map(Box::new).map(Answer::Response),
            () = self.killed.cancelled() => Err(CallError::Gone),
        }
    }

    /// This shard's connection; `None` when the process is over.
    pub(super) fn connection(self: &Arc<Self>) -> std::io::Result<Option<Arc<Connection>>> {
        let Link::Ipc { control, connections } = &self.link else { return Ok(None) };
        let Some(cell) = connections.get(shard() % connections.len().max(1)) else { return Ok(None) };
        let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*cell
            && !connection.is_ended()
        {
            return Ok(Some(Arc::clone(connection)));
        }
        if self.is_doomed() {
            return Ok(None);
        }
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        let instance = Arc::downgrade(self);
        let opened = Connection::open(id, Arc::clone(control), move |end| {
            if let Some(instance) = instance.upgrade() {
                instance.kill(match end {
                    End::Closed { greeted } => {
                        instance.greeted.fetch_or(greeted, Ordering::Relaxed);
                        Fate::Closed
                    }
                    End::Violation(text) => Fate::Violation(text),
                });
                instance.disconnected.notify_waiters();
            }
        });
        match opened {
            Ok(connection) => {
                *cell = Some(Arc::clone(&connection));
                Ok(Some(connection))
            }
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Ends the process; everything open on it fails. The first reason stays. One that closed a connection has
    /// perhaps answered on others: these are read to their end.
    pub fn kill(&self, fate: Fate) {
        let closed = fate == Fate::Closed;
        if self.fate.set(fate).is_err() {
            return;
        }
        if let Some(slot) = self.slot.upgrade() {
            slot.remove(self);
        }
        self.process.kill();
        if !closed {
            self.close();
        }
    }

    /// Ends the process when it has nothing to do.
    pub(super) fn kill_unless_busy(&self, fate: Fate) {
        if self.slot.upgrade().is_none_or(|slot| slot.remove_idle(self)) {
            self.kill(fate);
        }
    }

    /// It has no invocation, and nobody who is about to begin one.
    pub(super) fn is_idle(&self) -> bool {
        self.open() == 0 && self.load.load(Ordering::Relaxed) == 0
    }

    /// Fails everything open on it.
    pub(super) fn close(&self) {
        self.killed.cancel();
        if let Link::Ipc { connections, .. } = &self.link {
            for cell in connections {
                let connection = cell.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(connection) = connection {
                    connection.close();
                }
            }
        }
    }

    /// Notes that the process is over.
    pub(super) fn end(&self, ended: Ended) {
        // Set once, by the one task that waits for it.
        let _ = self.ended.set(ended);
        if let Some(slot) = self.slot.upgrade() {
            slot.remove(self);
        }
        self.over.cancel();
    }

    /// Waits until the process is over, at most `patience`.
    pub async fn ended(&self, patience: Duration) -> Option<&Ended> {
        if self.ended.get().is_none() {
            let _ = tokio::time::timeout(patience, self.over.cancelled()).await;
        }
        self.ended.get()
    }

    /// Cancelled when the process is over.
    pub(super) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// Why the supervisor ended it, if it did.
    #[must_use]
    pub fn fate(&self) -> Option<&Fate> {
        self.fate.get()
    }

    /// True when it takes no more requests.
    #[must_use]
    pub fn is_doomed(&self) -> bool {
        self.fate.get().is_some() || self.ended.get().is_some()
    }

    /// True when it ever answered.
    #[must_use]
    pub fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits until its connections are closed.
    pub(super) async fn closed(&self) {
        let Link::Ipc { connections, .. } = &self.link else { return };
        let is_open = |cell: &Mutex<Option<Arc<Connection>>>| {
            let cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
            cell.as_ref().is_some_and(|connection| !connection.is_ended())
        };
        loop {
            let mut disconnected = std::pin::pin!(self.disconnected.notified());
            // One may end between the look and the waiting.
            disconnected.as_mut().enable();
            if !connections.iter().any(is_open) {
                return;
            }
            disconnected.await;
        }
    }

    /// Notes that it was ready.
    pub(super) fn set_greeted(&self) {
        self.greeted.store(true, Ordering::Relaxed);
    }

    /// True when an `ipc` Worker said hello on some connection, or an `http` Worker's port accepted.
    #[must_use]
    pub fn has_greeted(&self) -> bool {
        self.greeted.load(Ordering::Relaxed)
    }

    /// An invocation begins `now`; returns its mark for [`Self::used`].
    pub fn enter(&self, now: Instant) -> u64 {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut meter = self.meter();
        let cpu = self.recent_cpu(&mut meter, now);
        meter.enter(cpu)
    }

    /// CPU time since a mark.
    pub fn used(&self, mark: u64) -> Duration {
        let mut meter = self.meter();
        let cpu = self.cpu(&mut meter, Instant::now());
        Duration::from_nanos(meter.used(cpu, mark))
    }

    /// An invocation ends `now`; returns its CPU time.
    pub fn leave(&self, mark: u64, now: Instant) -> Duration {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let mut meter = self.meter();
        // The last one's time is its own: it is read, not taken from before.
        let cpu =
            if meter.is_shared() { self.recent_cpu(&mut meter, now) } else { self.cpu(&mut meter, now) };
        Duration::from_nanos(meter.leave(cpu, mark))
    }

    /// Invocations that are not over, `wait_until` work included.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Invocations it ever had.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The CPU clock, read now.
    fn cpu(&self, meter: &mut Meter, now: Instant) -> u64 {
        meter.read_at = Some(now);
        let read = match self.ended.get() {
            Some(ended) => Some(ended.cpu),
            None => self.process.cpu_time().ok(),
        };
        read.and_then(|cpu| u64::try_from(cpu.as_nanos()).ok()).unwrap_or_else(|| meter.last())
    }

    /// The CPU clock as of at most [`FRESH`] ago. Reading another process's clock is a system call,
    /// and under load there are many requests in that time.
    fn recent_cpu(&self, meter: &mut Meter, now: Instant) -> u64 {
        match meter.read_at {
            Some(read) if now.saturating_duration_since(read) < FRESH => meter.last(),
            _ => self.cpu(meter, now),
        }
    }

    /// Host pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// For whom a request to the proxy port most likely is: for the latest call that is not over.
    #[must_use]
    pub fn current_caller(&self) -> Option<EgressCaller> {
        self.callers.current()
    }

    /// What holds for a request to the proxy port between calls: the outbound Worker of the last call that carried
    /// one, what is left of the last call's budget, and the depth to go on from. Before the first call, those of the
    /// call that the process was started for; without one, a budget of `subrequests`.
    #[must_use]
    pub fn between_calls(&self, subrequests: Option<u32>) -> (Option<OutboundCall>, Arc<Budget>, u8) {
        self.callers.afterwards(|| Budget::new(subrequests))
    }

    /// The invocation at this address is over.
    pub fn forget_caller(&self, caller: *const ()) {
        // Those of the other contract are not listed.
        if matches!(self.link, Link::Http(_)) {
            self.callers.remove(caller);
        }
    }
}
