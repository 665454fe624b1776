//! What is open on one connection.
//!
//! Nothing that was taken out of here may be dropped while the state is locked: a body may belong
//! to another connection, or to this one, and says good-bye when it is dropped. Such things leave
//! as [`Trash`].

use std::collections::BTreeSet;
use std::sync::Arc;

use cloister_ipc::worker::{BodyEnd, BodyRef, FetchId, RequestId};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::{CANCELLED_KEPT, STRAY_MESSAGES};
use crate::body::Body;
use crate::worker::{Answer, CallError, Caller, Tunnel};

/// By id. Keys are numbers that both sides must count up, so no hash against chosen keys is paid for; what
/// there is differs from process to process all the same.
pub(super) type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// The Worker broke the protocol; the text says how, for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Violation(pub(super) String);

impl Violation {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Where a request waits for its answer.
pub(super) type AnswerSender = oneshot::Sender<Result<Answer, CallError>>;

/// Waits for an answer.
pub(super) type AnswerReceiver = oneshot::Receiver<Result<Answer, CallError>>;

/// A request that is not over.
pub(super) struct OpenRequest {
    /// Until it is answered.
    pub(super) answer: Option<AnswerSender>,
    /// Position of its first byte in all that was ever sent.
    pub(super) position: u64,
    /// Whose fetches it makes.
    pub(super) caller: Arc<dyn Caller>,
    /// Its response body or tunnel is not over.
    pub(super) streaming: bool,
    /// `wait_until` work goes on.
    pub(super) waiting: bool,
    /// Ends it; runs from the end of the response.
    pub(super) timer: Option<AbortHandle>,
}

/// A fetch of which something is open.
pub(super) struct OpenFetch {
    /// On whose behalf.
    pub(super) request: RequestId,
    /// Makes it.
    pub(super) task: AbortHandle,
}

/// A body that is not over.
pub(super) enum OpenBody {
    /// Waits to be opened, forwarded or dropped.
    Held(Body),
    /// The same for a tunnel.
    HeldTunnel(Tunnel),
    /// Opened by the Worker; the task writes it.
    Writing(AbortHandle),
    /// Written by the Worker; gets its end, once.
    Reading(Option<oneshot::Sender<BodyEnd>>),
}

/// Messages on their way out.
#[derive(Default)]
pub(super) struct Outbox {
    /// Encoded frames; the first `sent` bytes are out already.
    pub(super) bytes: Vec<u8>,
    /// See `bytes`.
    pub(super) sent: usize,
    /// All bytes ever sent.
    pub(super) total_sent: u64,
    /// Somebody was asked to flush.
    pub(super) dirty: bool,
    /// The socket is full; the writer task waits for it.
    pub(super) blocked: bool,
    /// The Worker reads no more. What it wrote before is still to be read.
    pub(super) broken: bool,
}

impl Outbox {
    /// Bytes not sent yet.
    pub(super) fn waiting(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Position of the next byte to be appended.
    pub(super) fn position(&self) -> u64 {
        self.total_sent + self.waiting() as u64
    }

    /// Notes that `count` bytes are out.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        self.total_sent += count as u64;
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
            if self.bytes.capacity() > super::HIGH_WATER {
                self.bytes = Vec::new();
            }
        } else if self.sent > super::HIGH_WATER {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct State {
    pub(super) out: Outbox,
    pub(super) greeted: bool,
    pub(super) ended: bool,
    pub(super) last_request: RequestId,
    pub(super) last_fetch: FetchId,
    pub(super) requests: Map<RequestId, OpenRequest>,
    pub(super) fetches: Map<FetchId, OpenFetch>,
    pub(super) bodies: Map<BodyRef, OpenBody>,
    /// Requests that were cancelled, and that the Worker has not answered.
    cancelled: BTreeSet<RequestId>,
    strays: u32,
    /// Messages that cross with what the supervisor ended by itself: the Worker could not know.
    crossing: u32,
}

/// What is to be dropped when the state is unlocked again.
#[derive(Default)]
#[must_use]
pub(super) struct Trash {
    requests: Vec<OpenRequest>,
    bodies: Vec<OpenBody>,
}

impl Trash {
    pub(super) fn body(&mut self, body: Option<OpenBody>) {
        if let Some(body) = body {
            if let OpenBody::Writing(task) = &body {
                task.abort();
            }
            self.bodies.push(body);
        }
    }

    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.bodies.is_empty()
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        if !self.is_empty() {
            for request in self.requests.drain(..) {
                if let Some(task) = &request.timer {
                    task.abort();
                }
            }
            self.bodies.clear();
        }
    }
}

impl State {
    /// Forgets a request and all that belongs to it.
    pub(super) fn over(&mut self, id: RequestId) -> Trash {
        let mut trash = Trash::default();
        trash.requests.extend(self.requests.remove(&id));
        if !self.fetches.is_empty() {
            let own: Vec<_> =
                self.fetches.iter().filter(|(_, fetch)| fetch.request == id).map(|(id, _)| *id).collect();
            for fetch in own {
                self.fetch_over(fetch, &mut trash);
            }
        }
        if !self.bodies.is_empty() {
            for body in [BodyRef::Request(id), BodyRef::Response(id), BodyRef::Tunnel(id)] {
                trash.body(self.bodies.remove(&body));
            }
        }
        trash
    }

    /// Forgets a fetch and all that belongs to it.
    pub(super) fn fetch_over(&mut self, id: FetchId, trash: &mut Trash) {
        if let Some(fetch) = self.fetches.remove(&id) {
            fetch.task.abort();
        }
        for body in [BodyRef::FetchRequest(id), BodyRef::FetchResponse(id), BodyRef::FetchTunnel(id)] {
            trash.body(self.bodies.remove(&body));
        }
    }

    /// Forgets a request whose answer nobody waits for, but expects that it may still come.
    pub(super) fn cancel(&mut self, id: RequestId) -> Trash {
        let answered = self.requests.get(&id).is_none_or(|request| request.answer.is_none());
        if !answered {
            self.cancelled.insert(id);
            if self.cancelled.len() > CANCELLED_KEPT {
                self.cancelled.pop_first();
            }
        }
        let fetches = self.fetches.len();
        let trash = self.over(id);
        // Each may be opened or ended, and then given up.
        let ended = 2 * (trash.bodies.len() + fetches - self.fetches.len());
        self.crossing =
            self.crossing.saturating_add(u32::try_from(ended).unwrap_or(u32::MAX)).min(STRAY_MESSAGES);
        trash
    }

    /// True, once, when the request was cancelled before it was answered.
    pub(super) fn was_cancelled(&mut self, id: RequestId) -> bool {
        self.cancelled.remove(&id)
    }

    /// True when such an id was given out, whether it is over or not.
    pub(super) fn given_out(&self, body: BodyRef) -> bool {
        match body {
            BodyRef::Request(id) | BodyRef::Response(id) | BodyRef::Tunnel(id) => {
                (1..=self.last_request).contains(&id)
            }
            BodyRef::FetchRequest(id) | BodyRef::FetchResponse(id) | BodyRef::FetchTunnel(id) => {
                (1..=self.last_fetch).contains(&id)
            }
        }
    }

    /// Counts a message about something that is over: the two sides may cross, but not for ever.
    pub(super) fn stray(&mut self) -> Result<(), Violation> {
        if self.crossing > 0 {
            self.crossing -= 1;
            return Ok(());
        }
        self.strays += 1;
        if self.strays > STRAY_MESSAGES {
            return Err(Violation::new("floods with messages about requests that are over"));
        }
        Ok(())
    }

    /// Forgives strays: the Worker did something useful.
    pub(super) fn useful(&mut self) {
        self.strays = 0;
    }
}
