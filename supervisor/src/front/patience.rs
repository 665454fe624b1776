//! Closes connections on which nothing comes: a client that sends its header byte by byte, or keeps
//! a connection for nothing.
//!
//! A connection without an open request is closed when none was completed for the given time. That
//! bounds the time for a header too, and costs a request two stores instead of a timer.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;

use crate::body::{Body, BodyError};

/// The connections of one shard.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: Instant,
    /// Milliseconds since `epoch`, as of the last look.
    clock: AtomicU64,
    next: AtomicU64,
    watched: Mutex<HashMap<u64, (AbortHandle, Client)>>,
}

/// What is known of one connection.
#[derive(Debug, Clone)]
pub(super) struct Client(Arc<ClientInner>);

#[derive(Debug)]
struct ClientInner {
    patience: Patience,
    key: u64,
    open: AtomicU32,
    /// Clock at the end of its last request.
    since: AtomicU64,
}

/// One open request of a connection.
#[derive(Debug)]
pub(super) struct Busy(Client);

impl Patience {
    /// Starts to look every so often; must be called within a runtime.
    pub(super) fn start(idle: Duration) -> Self {
        let inner = Inner {
            epoch: Instant::now(),
            clock: AtomicU64::new(0),
            next: AtomicU64::new(0),
            watched: Mutex::default(),
        };
        let patience = Self(Arc::new(inner));
        let weak = Arc::downgrade(&patience.0);
        let period = (idle / 4).max(Duration::from_millis(10));
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(period);
            loop {
                interval.tick().await;
                match weak.upgrade() {
                    Some(inner) => inner.look(idle),
                    None => return,
                }
            }
        });
        patience
    }

    /// A new connection.
    pub(super) fn client(&self) -> Client {
        Client(Arc::new(ClientInner {
            patience: self.clone(),
            key: self.0.next.fetch_add(1, Ordering::Relaxed),
            open: AtomicU32::new(0),
            since: AtomicU64::new(self.0.clock.load(Ordering::Relaxed)),
        }))
    }
}

impl Inner {
    fn look(&self, idle: Duration) {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = milliseconds(self.epoch.elapsed());
        self.clock.store(now, Ordering::Relaxed);
        let limit = milliseconds(idle);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, (task, client)| {
            if task.is_finished() {
                return false;
            }
            let idle = client.0.open.load(Ordering::Relaxed) == 0
                && now.saturating_sub(client.0.since.load(Ordering::Relaxed)) > limit;
            if idle {
                task.abort();
            }
            !idle
        });
    }
}

impl Client {
    /// Has the connection's task ended when patience runs out.
    pub(super) fn watch(self, task: AbortHandle) {
        let key = self.0.key;
        let patience = self.0.patience.clone();
        patience.0.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (task, self));
    }

    /// A request begins.
    pub(super) fn busy(&self) -> Busy {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let client = &self.0.0;
        client.since.store(client.patience.0.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        client.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Keeps the connection busy until the answer's last byte; an answer that is all here needs none.
pub(super) fn held(mut body: Body, busy: Busy) -> Body {
    match body.take_full() {
        Some(bytes) => Body::full(bytes),
        None => Body::boxed(Held { body, _busy: busy }),
    }
}

struct Held {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
