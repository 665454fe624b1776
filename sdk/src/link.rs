//! What the parts of one connection share: the corked output, open fetches, sockets on their way.
//!
//! Handlers may run on other threads (a spawned task that fetches), hence the lock; it is never
//! held while a handler runs.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use cloister_ipc::control::ConnectionId;
use cloister_ipc::frame::{self, FrameError};
use cloister_ipc::limits::FETCHES_IN_FLIGHT;
use cloister_ipc::worker::{BodyEnd, BodyRef, FetchId, FromWorker, HostBody, RequestId};

use crate::error::FetchError;
use crate::task::Spawned;

/// Bytes of unread output at which the Worker stops taking requests and starting fetches.
pub(crate) const OUTPUT_BYTES: usize = 256 * 1024;

/// One message stream, as seen by everything but its driver.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its number.
    pub(crate) id: ConnectionId,
    /// Requests that are not over.
    open: AtomicUsize,
    state: Mutex<State>,
}

/// What came back for a fetch.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) status: u16,
    /// Header block.
    pub(crate) headers: Bytes,
    pub(crate) body: HostBody,
    /// The body that rode with the message.
    pub(crate) inline: Bytes,
}

type FetchResult = Result<Fetched, FetchError>;

/// Driver's view of a link and of what others put into it.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Frames to write, not yet taken by the driver.
    output: Vec<u8>,
    /// Bytes the driver took and could not write yet.
    unwritten: usize,
    /// Wakes the driver.
    driver: Option<Waker>,
    /// The driver is running: it will look at everything before it returns.
    driving: bool,
    closed: bool,
    /// Who waits for room in the output or for a free fetch.
    room: Vec<Waker>,
    slots: HashMap<BodyRef, Slot>,
    fetches: HashMap<FetchId, FetchSlot>,
    /// Fetches whose response body is still held.
    held: usize,
    last_fetch: FetchId,
    spawned: Vec<Spawned>,
}

/// Where the socket and the end of a body arrive.
#[derive(Debug, Default)]
struct Slot {
    descriptor: Option<OwnedFd>,
    end: Option<BodyEnd>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct FetchSlot {
    request: RequestId,
    result: Option<FetchResult>,
    waker: Option<Waker>,
}

impl State {
    fn wake(&self) {
        if !self.driving
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    fn append(&mut self, message: &FromWorker, body: &[u8]) -> Result<(), FrameError> {
        if self.closed {
            return Ok(());
        }
        let idle = self.output.is_empty();
        frame::append(message, body, &mut self.output)?;
        if idle {
            self.wake();
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.output.len() + self.unwritten < OUTPUT_BYTES
    }

    fn take_waiters(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.room)
    }
}

fn wake_all(waiters: Vec<Waker>) {
    for waiter in waiters {
        waiter.wake();
    }
}

impl Link {
    pub(crate) fn new(id: ConnectionId) -> Self {
        Self { id, open: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a message; it is written when the driver has nothing more to do.
    pub(crate) fn send(&self, message: &FromWorker, body: &[u8]) -> Result<(), FrameError> {
        self.lock().append(message, body)
    }

    /// Appends a message that is short by construction.
    pub(crate) fn tell(&self, message: &FromWorker) {
        // Such a message has no text and no headers: it always fits.
        let _fits = self.send(message, &[]);
    }

    /// Hands work to the driver.
    pub(crate) fn spawn(&self, task: Spawned) {
        let mut state = self.lock();
        if !state.closed {
            state.spawned.push(task);
            state.wake();
        }
    }

    // The driver's side.

    /// The driver starts to run: what is appended from now on needs no wake-up.
    pub(crate) fn enter(&self, waker: &Waker) {
        let mut state = self.lock();
        state.driving = true;
        match &mut state.driver {
            Some(driver) => driver.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// The driver is about to return; false when something came that it has not looked at.
    pub(crate) fn leave(&self) -> bool {
        let mut state = self.lock();
        if state.spawned.is_empty() && (state.output.is_empty() || state.unwritten > 0) {
            state.driving = false;
            return true;
        }
        false
    }

    /// Work handed over since the last call.
    pub(crate) fn take_spawned(&self) -> Vec<Spawned> {
        std::mem::take(&mut self.lock().spawned)
    }

    /// Exchanges the driver's written-out buffer for the output; true when there is some.
    pub(crate) fn take_output(&self, written: &mut Vec<u8>) -> bool {
        written.clear();
        let mut state = self.lock();
        std::mem::swap(&mut state.output, written);
        state.unwritten = written.len();
        let waiters = if written.is_empty() { state.take_waiters() } else { Vec::new() };
        drop(state);
        wake_all(waiters);
        !written.is_empty()
    }

    /// How much of what the driver took is still unwritten.
    pub(crate) fn set_unwritten(&self, bytes: usize) {
        self.lock().unwritten = bytes;
    }

    /// False when so much output is unread that no more requests should be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.lock().has_room()
    }

    /// The connection is gone: everybody who waits for something from it is told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let mut waiters = state.take_waiters();
        waiters.extend(state.slots.drain().filter_map(|(_, slot)| slot.waker));
        waiters.extend(state.fetches.drain().filter_map(|(_, slot)| slot.waker));
        state.output = Vec::new();
        // Work may hold the lock's owner: it is dropped outside.
        let spawned = std::mem::take(&mut state.spawned);
        drop(state);
        drop(spawned);
        wake_all(waiters);
    }

    // Requests.

    /// A request was taken.
    pub(crate) fn begin(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// A request is over, and with it its fetches and bodies.
    pub(crate) fn finish(&self, request: RequestId) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let mut state = self.lock();
        if state.slots.is_empty() && state.fetches.is_empty() {
            return;
        }
        let mut waiters = Vec::new();
        for body in [BodyRef::Request(request), BodyRef::Tunnel(request)] {
            waiters.extend(state.slots.remove(&body).and_then(|slot| slot.waker));
        }
        for slot in state.fetches.values_mut().filter(|slot| slot.request == request) {
            slot.result.get_or_insert(Err(FetchError::Over));
            waiters.extend(slot.waker.take());
        }
        drop(state);
        wake_all(waiters);
    }

    /// Number of requests that are not over.
    pub(crate) fn open_requests(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    // Sockets of bodies and tunnels.

    /// Expects a socket for `body`.
    pub(crate) fn expect(&self, body: BodyRef) {
        let mut state = self.lock();
        if !state.closed {
            state.slots.entry(body).or_default();
        }
    }

    /// True while a socket for `body` is expected.
    pub(crate) fn expects(&self, body: BodyRef) -> bool {
        self.lock().slots.contains_key(&body)
    }

    /// No longer expects anything for `body`.
    pub(crate) fn forget(&self, body: BodyRef) {
        let slot = self.lock().slots.remove(&body);
        wake_all(slot.and_then(|slot| slot.waker).into_iter().collect());
    }

    /// A socket came; closed when nobody expects it any more.
    pub(crate) fn deliver(&self, body: BodyRef, descriptor: OwnedFd) {
        let mut state = self.lock();
        let waker = state.slots.get_mut(&body).and_then(|slot| {
            slot.descriptor = Some(descriptor);
            slot.waker.take()
        });
        drop(state);
        wake_all(waker.into_iter().collect());
    }

    /// The writer of `body` said how it ended.
    pub(crate) fn ended(&self, body: BodyRef, end: BodyEnd) {
        let mut state = self.lock();
        let waker = state.slots.get_mut(&body).and_then(|slot| {
            slot.end = Some(end);
            slot.waker.take()
        });
        drop(state);
        wake_all(waker.into_iter().collect());
    }

    /// The socket of an expected `body`; `None` when it will not come.
    pub(crate) fn poll_descriptor(&self, body: BodyRef, cx: &mut Context<'_>) -> Poll<Option<OwnedFd>> {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&body) else { return Poll::Ready(None) };
        if let Some(descriptor) = slot.descriptor.take() {
            return Poll::Ready(Some(descriptor));
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// How the writer ended `body`; `None` when nobody will say.
    pub(crate) fn poll_end(&self, body: BodyRef, cx: &mut Context<'_>) -> Poll<Option<BodyEnd>> {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&body) else { return Poll::Ready(None) };
        if let Some(end) = slot.end.take() {
            state.slots.remove(&body);
            return Poll::Ready(Some(end));
        }
        slot.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    // Fetches.

    /// Ready with the number of a new fetch when the output has room and not too many are open.
    pub(crate) fn poll_fetch(&self, request: RequestId, cx: &mut Context<'_>) -> Poll<Option<FetchId>> {
        let mut state = self.lock();
        if state.closed {
            return Poll::Ready(None);
        }
        if !state.has_room() || state.fetches.len() + state.held >= FETCHES_IN_FLIGHT {
            state.room.push(cx.waker().clone());
            return Poll::Pending;
        }
        state.last_fetch += 1;
        let fetch = state.last_fetch;
        state.fetches.insert(fetch, FetchSlot { request, result: None, waker: None });
        Poll::Ready(Some(fetch))
    }

    /// A fetch was answered or failed.
    pub(crate) fn fetched(&self, fetch: FetchId, result: FetchResult) {
        let mut state = self.lock();
        let waker = state.fetches.get_mut(&fetch).and_then(|slot| {
            slot.result.get_or_insert(result);
            slot.waker.take()
        });
        drop(state);
        wake_all(waker.into_iter().collect());
    }

    /// The result of a fetch; the fetch is then forgotten.
    pub(crate) fn poll_fetched(&self, fetch: FetchId, cx: &mut Context<'_>) -> Poll<FetchResult> {
        let mut state = self.lock();
        let Some(slot) = state.fetches.get_mut(&fetch) else { return Poll::Ready(Err(FetchError::Over)) };
        let Some(result) = slot.result.take() else {
            slot.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        state.fetches.remove(&fetch);
        let mut waiters = Vec::new();
        match &result {
            Ok(Fetched { body: HostBody::Held { .. } | HostBody::Tunnel, .. }) => state.held += 1,
            _ => waiters = state.take_waiters(),
        }
        drop(state);
        wake_all(waiters);
        Poll::Ready(result)
    }

    /// Nobody waits for a fetch any more; true when it had no result yet.
    pub(crate) fn forget_fetch(&self, fetch: FetchId) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.fetches.remove(&fetch) else { return false };
        let waiters = state.take_waiters();
        drop(state);
        wake_all(waiters);
        slot.result.is_none()
    }

    /// The held body of a fetch's response is no longer held.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(1);
        let waiters = state.take_waiters();
        drop(state);
        wake_all(waiters);
    }
}
