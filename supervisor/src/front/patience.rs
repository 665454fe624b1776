//! Closes connections on which nothing comes: a client that sends its header byte by byte, or keeps
//! a connection for nothing, or does not read its answers.
//!
//! A connection without an open request is closed when none was completed for the given time, and one whose
//! answers wait to be read when nothing was taken for that time. That bounds the time for a header too, and
//! costs a request two stores instead of a timer. One answer of many (h2) ends alone. (A request's body has a timer of its own while it is waited
//! for: the request may wait for other things as well.)

use std::collections::HashMap;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant as Deadline, Sleep, sleep};

use super::stream::Stream;
use crate::body::{Body, BodyError};

/// The connections of one shard.
#[derive(Debug, Clone)]
pub(super) struct Patience(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    epoch: Instant,
    idle: Duration,
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
    /// Clock at which its socket took no more, and 1; 0 while it takes all.
    stalled: AtomicU64,
    /// Its answers of which more is there than was asked for, by number: an h2 client can hold one of many back,
    /// while its socket takes all.
    unread: Mutex<HashMap<u64, Arc<Unread>>>,
    answers: AtomicU64,
}

/// One open request of a connection.
#[derive(Debug)]
pub(super) struct Busy(Client);

/// A connection that goes on. Dropped at its end, or connections that come and go faster than is looked would
/// leave what each was made of.
#[derive(Debug)]
pub(super) struct Going(Client);

impl Drop for Going {
    fn drop(&mut self) {
        let client = &self.0.0;
        let ended = client.patience.0.watched().remove(&client.key);
        // Only here: what it takes along is not dropped while all others wait.
        drop(ended);
    }
}

impl Patience {
    /// Starts to look every so often; must be called within a runtime.
    pub(super) fn start(idle: Duration) -> Self {
        let inner = Inner {
            epoch: Instant::now(),
            idle,
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

    /// Milliseconds since the epoch, as of now.
    fn now(&self) -> u64 {
        u64::try_from(self.0.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A new connection.
    pub(super) fn client(&self) -> Client {
        Client(Arc::new(ClientInner {
            patience: self.clone(),
            key: self.0.next.fetch_add(1, Ordering::Relaxed),
            open: AtomicU32::new(0),
            since: AtomicU64::new(self.0.clock.load(Ordering::Relaxed)),
            stalled: AtomicU64::new(0),
            unread: Mutex::default(),
            answers: AtomicU64::new(0),
        }))
    }
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, HashMap<u64, (AbortHandle, Client)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, idle: Duration) {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = milliseconds(self.epoch.elapsed());
        self.clock.store(now, Ordering::Relaxed);
        let limit = milliseconds(idle);
        let mut clients = Vec::new();
        self.watched().retain(|_, (task, client)| {
            if task.is_finished() {
                return false;
            }
            let idle = client.0.open.load(Ordering::Relaxed) == 0
                && now.saturating_sub(client.0.since.load(Ordering::Relaxed)) > limit;
            let stalled = client.0.stalled.load(Ordering::Relaxed);
            let idle = idle || stalled > 0 && now.saturating_sub(stalled - 1) > limit;
            if idle {
                task.abort();
            }
            if !idle && !client.unread().is_empty() {
                clients.push(client.clone());
            }
            !idle
        });
        for client in clients {
            client.cut_unread(now, limit);
        }
    }
}

impl Client {
    /// Has the connection's task ended when patience runs out.
    pub(super) fn watch(self, task: AbortHandle) {
        let key = self.0.key;
        let patience = self.0.patience.clone();
        patience.0.watched().insert(key, (task, self));
    }

    /// For the connection's task to hold.
    pub(super) fn going(&self) -> Going {
        Going(self.clone())
    }

    fn unread(&self) -> MutexGuard<'_, HashMap<u64, Arc<Unread>>> {
        self.0.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the answers of which nothing was taken for too long.
    fn cut_unread(&self, now: u64, limit: u64) {
        let is_late = |answer: &Arc<Unread>| {
            let since = answer.since.load(Ordering::Relaxed);
            since > 0 && now.saturating_sub(since - 1) > limit
        };
        let late: Vec<_> = self.unread().values().filter(|answer| is_late(answer)).cloned().collect();
        for answer in late {
            // What is dropped says good-bye to others: nothing is locked then.
            let rest = answer.rest().take();
            drop(rest);
        }
    }

    /// How long nothing may come.
    pub(super) fn patience(&self) -> Duration {
        self.0.patience.0.idle
    }

    /// Its socket, watched.
    pub(super) fn stream(&self, stream: TcpStream) -> Stream {
        Stream::new(stream, self.clone())
    }

    /// Its socket takes no more, or (again) all.
    pub(super) fn stalls(&self, stalls: bool) {
        let stalled = &self.0.stalled;
        if !stalls {
            stalled.store(0, Ordering::Relaxed);
        } else if stalled.load(Ordering::Relaxed) == 0 {
            stalled.store(self.0.patience.now() + 1, Ordering::Relaxed);
        }
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
        None => Body::boxed(Held::new(body, busy)),
    }
}

/// An answer's body on its way to a client.
struct Held {
    number: u64,
    answer: Arc<Unread>,
    client: Client,
}

/// What is left of an answer: its end frees its Worker, also while nobody asks for the rest of it.
struct Unread {
    rest: Mutex<Option<(Body, Busy)>>,
    /// Clock at which a piece was taken, and 1; 0 while its Worker is waited for.
    since: AtomicU64,
}

impl std::fmt::Debug for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unread").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Unread {
    fn rest(&self) -> MutexGuard<'_, Option<(Body, Busy)>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn new(body: Body, busy: Busy) -> Self {
        let client = busy.0.clone();
        let answer = Arc::new(Unread { rest: Mutex::new(Some((body, busy))), since: AtomicU64::new(0) });
        let number = client.0.answers.fetch_add(1, Ordering::Relaxed);
        client.unread().insert(number, Arc::clone(&answer));
        Self { number, answer, client }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.client.unread().remove(&self.number);
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut rest = self.answer.rest();
        let Some((body, _)) = &mut *rest else { return Poll::Ready(Some(Err(BodyError::Aborted))) };
        let polled = Pin::new(body).poll_frame(cx);
        let since = if polled.is_ready() { self.client.0.patience.now() + 1 } else { 0 };
        self.answer.since.store(since, Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.answer.rest().as_ref().is_some_and(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.answer.rest().as_ref().map_or_else(SizeHint::default, |(body, _)| body.size_hint())
    }
}

/// A request's body, which breaks off when nothing of it comes for `limit` while somebody waits for it.
pub(super) fn awaited(body: Incoming, limit: Duration) -> Body {
    if body.is_end_stream() {
        return Body::empty();
    }
    Body::boxed(Awaited { body, limit, silence: None })
}

struct Awaited {
    body: Incoming,
    limit: Duration,
    /// Made when it is waited for the first time.
    silence: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Awaited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(silence) = &mut this.silence {
                silence.as_mut().reset(Deadline::now() + this.limit);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(this.limit)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Silent(this.limit))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_kept_of_connections_that_ended() {
        let patience = Patience::start(Duration::from_secs(60));
        let open = |ends: bool| {
            let client = patience.client();
            let going = client.going();
            let task = tokio::spawn(async move {
                let _going = going;
                if !ends {
                    std::future::pending::<()>().await;
                }
            });
            client.watch(task.abort_handle());
            task
        };
        let (ended, going, cut) = (open(true), open(false), open(false));
        assert_eq!(patience.0.watched().len(), 3);
        ended.await.unwrap();
        cut.abort();
        assert!(cut.await.is_err());
        assert_eq!(patience.0.watched().len(), 1);
        going.abort();
        assert!(going.await.is_err());
        assert!(patience.0.watched().is_empty());
    }
}
