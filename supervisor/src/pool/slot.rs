//! The processes of one Worker, and who waits for one.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::backoff::{Backoff, Starts};
use super::{Fate, Instance, Pool, Refused, StartFailed, start};
use crate::egress::Caller as EgressCaller;
use crate::outcome::Failure;
use crate::registry::Deployed;

/// Failures in a row after which a Worker is left alone for a while: those before it was ready, and
/// those of a request that it did not survive, which may be the client's doing.
const UNREADY_FORGIVEN: u32 = 1;
const READY_FORGIVEN: u32 = 8;

/// Who waits for a process.
struct Waiter {
    sender: oneshot::Sender<Result<Lease, Refused>>,
    /// The call that it is for.
    cause: EgressCaller,
}

impl Waiter {
    fn refuse(self, reason: &Arc<str>) {
        let reason = Arc::clone(reason);
        // Who went away needs no answer.
        let _ = self.sender.send(Err(Refused { failure: Failure::StartFailed, reason, retry_after: None }));
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The version new requests go to.
    current: Option<Arc<Deployed>>,
    instances: Vec<Arc<Instance>>,
    draining: Vec<Arc<Instance>>,
    starting: u32,
    waiters: VecDeque<Waiter>,
    backoff: Backoff,
    starts: Starts,
}

/// The right to have one more invocation in a process; dropping it gives it back.
pub struct Lease {
    instance: Option<Arc<Instance>>,
    slot: Arc<Slot>,
    pool: Pool,
    /// It waited for a process to start.
    pub cold: bool,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Lease {
    /// The process.
    #[must_use]
    pub fn instance(&self) -> Option<&Arc<Instance>> {
        self.instance.as_ref()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.slot.release(&self.pool, &instance);
        }
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Pool::acquire_now`].
    pub(super) fn acquire_now(self: &Arc<Self>, pool: &Pool, deployed: &Arc<Deployed>) -> Option<Lease> {
        let mut state = self.state();
        state.turn_to(pool, deployed);
        let instance = state.free()?;
        drop(state);
        Some(self.lease(pool, instance, false))
    }

    /// See [`Pool::acquire`].
    pub(super) async fn acquire(
        self: &Arc<Self>,
        pool: &Pool,
        deployed: &Arc<Deployed>,
        cause: EgressCaller,
    ) -> Result<Lease, Refused> {
        let receiver = {
            let mut state = self.state();
            state.turn_to(pool, deployed);
            if let Some(instance) = state.free() {
                return Ok(self.lease(pool, instance, false));
            }
            let now = Instant::now();
            if state.instances.is_empty()
                && let Some((left, reason)) = state.backoff.waits(now)
            {
                let seconds = u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
                return Err(Refused { failure: Failure::StartFailed, reason, retry_after: Some(seconds) });
            }
            // Those who went away take no place.
            state.waiters.retain(|waiter| !waiter.sender.is_closed());
            if state.waiters.len() >= pool.0.options.waiting {
                let reason = format!("{} requests wait already", state.waiters.len()).into();
                return Err(Refused { failure: Failure::LoadShed, reason, retry_after: Some(1) });
            }
            self.start_more(&mut state, pool, &cause);
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(Waiter { sender, cause });
            receiver
        };
        let options = &pool.0.options;
        match tokio::time::timeout(options.patience + options.start_timeout, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Refused {
                failure: Failure::StartFailed,
                reason: "the Worker was deleted while a request waited".into(),
                retry_after: None,
            }),
            Err(_) => Err(Refused {
                failure: Failure::LoadShed,
                reason: "no process became free in time".into(),
                retry_after: Some(1),
            }),
        }
    }

    fn lease(self: &Arc<Self>, pool: &Pool, instance: Arc<Instance>, cold: bool) -> Lease {
        Lease { instance: Some(instance), slot: Arc::clone(self), pool: pool.clone(), cold }
    }

    /// Starts one more process for the `cause`, when one more is allowed.
    fn start_more(self: &Arc<Self>, state: &mut State, pool: &Pool, cause: &EgressCaller) {
        let Some(deployed) = state.current.clone() else { return };
        let live = u32::try_from(state.instances.len()).unwrap_or(u32::MAX);
        if live.saturating_add(state.starting) < deployed.instances.max(1) {
            state.starting += 1;
            let wait = state.starts.take(Instant::now());
            let start = start::run(pool.clone(), Arc::clone(self), deployed, cause.clone());
            tokio::spawn(async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                start.await;
            });
        }
    }

    /// A start ended.
    pub(super) fn started(
        self: &Arc<Self>,
        pool: &Pool,
        deployed: &Arc<Deployed>,
        result: Result<Arc<Instance>, StartFailed>,
    ) {
        let mut refused = Vec::new();
        let mut superseded = None;
        {
            let mut state = self.state();
            state.starting = state.starting.saturating_sub(1);
            let current = state.current.as_ref().is_some_and(|current| current.version == deployed.version);
            match result {
                Ok(instance) if current && !instance.is_doomed() => {
                    state.instances.push(instance);
                    self.hand_over(&mut state, pool, true);
                }
                Ok(instance) => superseded = Some(instance),
                Err(error) if current => {
                    let reason: Arc<str> = error.message.into();
                    state.backoff.failed(Instant::now(), Arc::clone(&reason), UNREADY_FORGIVEN);
                    if state.instances.is_empty() && state.starting == 0 {
                        refused.extend(state.waiters.drain(..).map(|waiter| (waiter, Arc::clone(&reason))));
                    }
                }
                // Of a version before: it kept the place that one of the current version needs.
                Err(_) => self.feed_locked(&mut state, pool),
            }
            if superseded.is_some() {
                self.feed_locked(&mut state, pool);
            }
        }
        if let Some(instance) = superseded {
            instance.kill(Fate::Retired);
        }
        for (waiter, reason) in refused {
            waiter.refuse(&reason);
        }
    }

    /// Gives free processes to those who wait.
    fn hand_over(self: &Arc<Self>, state: &mut State, pool: &Pool, cold: bool) {
        while !state.waiters.is_empty() {
            let Some(instance) = state.free() else { return };
            let mut lease = self.lease(pool, instance, cold);
            loop {
                let Some(waiter) = state.waiters.pop_front() else {
                    // Given back by hand: the state is locked.
                    if let Some(instance) = lease.instance.take() {
                        instance.load.fetch_sub(1, Ordering::Relaxed);
                    }
                    return;
                };
                match waiter.sender.send(Ok(lease)) {
                    Ok(()) => break,
                    Err(Ok(back)) => lease = back,
                    Err(Err(_)) => return,
                }
            }
        }
    }

    fn release(self: &Arc<Self>, pool: &Pool, instance: &Arc<Instance>) {
        instance.last_used.store(pool.milliseconds(), Ordering::Relaxed);
        let mut state = self.state();
        instance.load.fetch_sub(1, Ordering::Relaxed);
        if !state.waiters.is_empty() {
            self.feed_locked(&mut state, pool);
        }
    }

    /// Serves those who wait, after something changed.
    pub(super) fn feed(self: &Arc<Self>, pool: &Pool) {
        self.feed_locked(&mut self.state(), pool);
    }

    fn feed_locked(self: &Arc<Self>, state: &mut State, pool: &Pool) {
        self.hand_over(state, pool, false);
        if state.starting == 0
            && let Some(cause) = state.waiters.front().map(|waiter| waiter.cause.clone())
        {
            self.start_more(state, pool, &cause);
        }
    }

    /// Takes a process out of use unless it has something to do. True when it has nothing, and never will.
    pub(super) fn remove_idle(&self, instance: &Instance) -> bool {
        let mut state = self.state();
        let idle = instance.is_idle();
        if idle {
            state.forget(instance);
        }
        idle
    }

    /// Forgets a process that ends.
    pub(super) fn remove(&self, instance: &Instance) {
        self.state().forget(instance);
    }

    /// A process of the current version died before it ever answered; `ready` when it died of a
    /// request, maybe.
    pub(super) fn crashed(self: &Arc<Self>, deployed: &Deployed, reason: Arc<str>, ready: bool) {
        let refused: Vec<Waiter> = {
            let mut state = self.state();
            if state.current.as_ref().is_none_or(|current| current.version != deployed.version) {
                return;
            }
            let forgiven = if ready { READY_FORGIVEN } else { UNREADY_FORGIVEN };
            state.backoff.failed(Instant::now(), Arc::clone(&reason), forgiven);
            let hopeless = state.instances.is_empty() && state.starting == 0;
            if hopeless { state.waiters.drain(..).collect() } else { Vec::new() }
        };
        for waiter in refused {
            waiter.refuse(&reason);
        }
    }

    /// A process answered: its version works.
    pub(super) fn worked(&self) {
        self.state().backoff.worked();
    }

    /// Why the last start failed, or the last process died at once.
    pub(super) fn trouble(&self) -> Option<Arc<str>> {
        self.state().backoff.reason()
    }

    /// Drains all versions but `current`; ends at once what has nothing to do.
    pub(super) fn retire(&self, current: Option<&Arc<str>>) {
        let idle: Vec<_> = {
            let mut state = self.state();
            if state.current.as_ref().map(|deployed| &deployed.version) == current {
                return;
            }
            state.current = None;
            state.backoff.worked();
            state.drain_all();
            if current.is_none() {
                state.waiters.clear();
            }
            state.draining.iter().filter(|instance| instance.is_idle()).cloned().collect()
        };
        for instance in idle {
            instance.kill(Fate::Retired);
        }
    }

    /// All processes, those that drain last.
    pub(super) fn instances(&self) -> Vec<Arc<Instance>> {
        let state = self.state();
        state.instances.iter().chain(&state.draining).cloned().collect()
    }
}

impl State {
    /// Makes `deployed` the version of new requests, when it is the registry's.
    fn turn_to(&mut self, pool: &Pool, deployed: &Arc<Deployed>) {
        match &self.current {
            Some(current) if current.version == deployed.version => return,
            // A request that looked the Worker up just before a deploy: the newer version serves it.
            Some(current) => {
                let truth = pool.0.registry.get(&deployed.id);
                if truth.is_some_and(|truth| truth.version == current.version) {
                    return;
                }
            }
            None => {}
        }
        self.current = Some(Arc::clone(deployed));
        self.backoff = Backoff::default();
        self.drain_all();
    }

    fn forget(&mut self, instance: &Instance) {
        self.instances.retain(|other| other.number != instance.number);
        self.draining.retain(|other| other.number != instance.number);
    }

    fn drain_all(&mut self) {
        for instance in self.instances.drain(..) {
            let _ = instance.draining.set(Instant::now()); // it is in one of both lists: never set before
            self.draining.push(instance);
        }
    }

    /// The least loaded process with room; takes the room.
    fn free(&mut self) -> Option<Arc<Instance>> {
        let load = |instance: &Arc<Instance>| instance.load.load(Ordering::Relaxed);
        let instance = self.instances.iter().filter(|one| !one.is_doomed()).min_by_key(|one| load(one))?;
        if load(instance) >= instance.deployed.concurrency.max(1) {
            return None;
        }
        instance.load.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(instance))
    }
}
