//! One request on its way through the Worker, from its arrival until nothing of it is left.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cloister_ipc::borrowed::{Context, RequestHead};
use cloister_ipc::control::Start;
use cloister_ipc::head;
use cloister_ipc::worker::{FromWorker, OutboundContext, RequestId};
use http::request::Parts;

use crate::link::Link;

/// Longest text of an exception, in bytes (the protocol's limit).
const EXCEPTION_BYTES: usize = 4096;

/// One request.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) id: RequestId,
    pub(crate) link: Arc<Link>,
    pub(crate) start: Arc<Start>,
    pub(crate) facts: Facts,
    progress: Mutex<Progress>,
}

/// What is known of a request besides HTTP. The texts share the memory of its message.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) ray: Text,
    pub(crate) client: Text,
    pub(crate) args: Text,
    pub(crate) outbound: Option<OutboundContext>,
    given: Given,
}

/// The request's head as it came.
#[derive(Debug)]
struct Given {
    method: Text,
    uri: Text,
    headers: Bytes,
}

impl Facts {
    pub(crate) fn new(message: &Bytes, head: &RequestHead<'_>, context: Context<'_>) -> Self {
        let text = |text: &str| Text(message.slice_ref(text.as_bytes()));
        let headers = message.slice_ref(head.headers);
        Self {
            given: Given { method: text(head.method), uri: text(head.uri), headers },
            ray: text(context.ray),
            client: text(context.client),
            args: text(context.args),
            outbound: context.outbound,
        }
    }

    /// True when `parts` are the request's own, with nothing changed.
    pub(crate) fn are_given(&self, parts: &Parts) -> bool {
        let Given { method, uri, headers } = &self.given;
        let (Some(scheme), Some(authority)) = (parts.uri.scheme_str(), parts.uri.authority()) else {
            return false;
        };
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let rest = [scheme, "://", authority.as_str(), target]
            .into_iter()
            .try_fold(&uri.0[..], |rest, part| rest.strip_prefix(part.as_bytes()));
        rest.is_some_and(<[u8]>::is_empty)
            && parts.method.as_str().as_bytes() == &method.0[..]
            && head::is_block_of(&parts.headers, headers)
    }
}

/// Shared bytes that were a `str`.
#[derive(Debug)]
pub(crate) struct Text(Bytes);

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Progress {
    phase: Phase,
    /// Holds that keep the request open after its answer.
    holds: usize,
    /// How many of them are work that the platform has to be told of.
    work: usize,
    /// The platform was told that work goes on, and waits for its end.
    told: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not answered.
    #[default]
    Open,
    /// Answered or cancelled; over when the last hold is gone.
    Held,
    Over,
}

impl Invocation {
    pub(crate) fn new(id: RequestId, link: Arc<Link>, start: Arc<Start>, facts: Facts) -> Arc<Self> {
        link.begin();
        Arc::new(Self { id, link, start, facts, progress: Mutex::default() })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing may be asked on behalf of this request any more.
    pub(crate) fn is_over(&self) -> bool {
        self.progress().phase == Phase::Over
    }

    /// Keeps the request open, also after its answer, until the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>, kind: HoldKind) -> Hold {
        let mut progress = self.progress();
        progress.holds += 1;
        progress.work += usize::from(kind == HoldKind::Work);
        Hold { invocation: self.clone(), kind }
    }

    /// Sends the answer. `send` is told whether work goes on after it, and returns an error's text
    /// when the answer can't be sent: an exception is sent instead.
    pub(crate) fn answer(&self, send: impl FnOnce(bool) -> Result<(), String>) {
        let mut progress = self.progress();
        if progress.phase != Phase::Open {
            return;
        }
        progress.told = progress.work > 0;
        let sent = send(progress.told);
        progress.phase = if progress.holds > 0 && sent.is_ok() { Phase::Held } else { Phase::Over };
        let over = progress.phase == Phase::Over;
        if let Err(text) = sent {
            self.send_exception(&text);
        }
        drop(progress);
        if over {
            self.link.finish(self.id);
        }
    }

    /// The handler failed.
    pub(crate) fn fail(&self, text: &str) {
        self.answer(|_| Err(text.to_owned()));
    }

    /// Nobody waits for the answer, and the handler is dropped.
    pub(crate) fn cancelled(&self) {
        let mut progress = self.progress();
        if progress.phase != Phase::Open {
            return;
        }
        progress.phase = Phase::Held;
        progress.told = true;
        self.settle(progress);
    }

    /// Ends an answered request when nothing holds it.
    fn settle(&self, mut progress: MutexGuard<'_, Progress>) {
        if progress.holds == 0 && progress.phase == Phase::Held {
            progress.phase = Phase::Over;
            if progress.told {
                self.link.tell(&FromWorker::Done { id: self.id });
            }
            drop(progress);
            self.link.finish(self.id);
        }
    }

    fn send_exception(&self, text: &str) {
        let mut end = text.len().min(EXCEPTION_BYTES);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let message = text.get(..end).unwrap_or_default().to_owned();
        self.link.tell(&FromWorker::Exception { id: self.id, message });
    }
}

/// What keeps a request open after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HoldKind {
    /// Its streamed body: the platform sees the end of it by itself.
    Body,
    /// `wait_until` work, or a tunnel.
    Work,
}

/// Keeps a request open until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    invocation: Arc<Invocation>,
    kind: HoldKind,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut progress = self.invocation.progress();
        progress.holds -= 1;
        progress.work -= usize::from(self.kind == HoldKind::Work);
        self.invocation.settle(progress);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Invocation>>> = const { RefCell::new(None) };
}

/// The request whose handler runs on this thread.
pub(crate) fn current() -> Option<Arc<Invocation>> {
    CURRENT.with(|current| current.try_borrow().ok().and_then(|current| current.clone()))
}

/// While it lives, [`current`] is this request.
pub(crate) struct Scope(Option<Arc<Invocation>>);

impl Scope {
    pub(crate) fn enter(invocation: Arc<Invocation>) -> Self {
        Self(CURRENT.with(|current| current.replace(Some(invocation))))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.with(|current| current.replace(self.0.take()));
    }
}
