//! Request bodies that are looked at before a Worker is given the request, while the request holds no place
//! in a process and no limit of the Worker runs.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cloister_ipc::limits::INLINE_BODY_BYTES;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Body, BodyError};

/// Longest wait for the whole of a body that must be here.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest wait for a small body that is most often behind its head; it can follow later as well.
const MOMENT: Duration = Duration::from_millis(50);

/// What is held of all bodies together, in KiB, and what one client may have of it.
const ALL_KIB: u32 = 256 << 10;
const CLIENT_KIB: u32 = ALL_KIB / 8;

/// What may be held of bodies.
#[derive(Debug)]
pub(super) struct Budget {
    all: Arc<Semaphore>,
    /// KiB by client, of those who hold any.
    clients: Mutex<HashMap<Arc<str>, u32>>,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    client: Arc<str>,
    kib: u32,
    _all: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(ALL_KIB as usize)), clients: Mutex::default() })
    }

    /// Room for a body of so many bytes of `client`.
    fn take(self: &Arc<Self>, client: &Arc<str>, bytes: u64) -> Option<Share> {
        let kib = u32::try_from(bytes / 1024 + 1).ok()?;
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let has = clients.get(client).copied().unwrap_or_default();
        if has.saturating_add(kib) > CLIENT_KIB {
            return None;
        }
        let all = Arc::clone(&self.all).try_acquire_many_owned(kib).ok()?;
        clients.insert(Arc::clone(client), has + kib);
        Some(Share { budget: Arc::clone(self), client: Arc::clone(client), kib, _all: all })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut clients = self.budget.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(has) = clients.get_mut(&self.client) {
            *has = has.saturating_sub(self.kib);
            if *has == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

/// A small body as it rides with the request's message to an `ipc` Worker, if it comes at once. One that does
/// not, or for which there is no room, follows the request.
pub(super) async fn at_hand(body: Body, client: &Arc<str>, budget: &Arc<Budget>) -> (Body, Option<Share>) {
    let Some(share) = small(&body).and_then(|length| budget.take(client, length)) else {
        return (body, None);
    };
    let mut gathering = Gathering::new(body);
    let whole = tokio::time::timeout(MOMENT, gathering.whole()).await;
    if let Ok(Ok(())) = whole {
        return (Body::full(gathering.came), Some(share));
    }
    let error = whole.ok().and_then(Result::err);
    (Body::boxed(Prefixed { came: gathering.came.freeze(), error, rest: gathering.body }), Some(share))
}

/// True for a body that [`at_hand`] is for.
pub(super) fn is_small(body: &Body) -> bool {
    !body.is_full() && small(body).is_some()
}

/// The length of a body that fits into a request's message.
fn small(body: &Body) -> Option<u64> {
    body.size_hint().exact().filter(|length| *length <= INLINE_BODY_BYTES as u64)
}

/// Why there is no whole body.
#[derive(Debug)]
pub(super) enum Missing {
    /// It broke off, or did not come.
    Broken(BodyError),
    /// Too much is held already.
    NoRoom,
}

/// Waits for the whole of a body of at most `longest` bytes.
pub(super) async fn gather(
    body: Body,
    longest: u64,
    client: &Arc<str>,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Share), Missing> {
    let length = body.size_hint().upper().unwrap_or(longest);
    let share = budget.take(client, length.min(longest)).ok_or(Missing::NoRoom)?;
    let mut gathering = Gathering::new(body);
    match tokio::time::timeout(PATIENCE, gathering.whole()).await {
        Ok(Ok(())) => Ok((gathering.came.freeze(), share)),
        Ok(Err(error)) => Err(Missing::Broken(error)),
        Err(_) => Err(Missing::Broken(BodyError::Silent(PATIENCE))),
    }
}

/// What came of a body, and the rest of it.
struct Gathering {
    came: BytesMut,
    body: Body,
}

impl Gathering {
    fn new(body: Body) -> Self {
        Self { came: BytesMut::new(), body }
    }

    /// Waits for all of it; may be given up and leaves what came.
    async fn whole(&mut self) -> Result<(), BodyError> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                self.came.extend_from_slice(&data);
            }
        }
        Ok(())
    }
}

/// A body of which the beginning came already.
struct Prefixed {
    came: Bytes,
    error: Option<BodyError>,
    rest: Body,
}

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if !self.came.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.came)))));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.error.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let came = self.came.len() as u64;
        match self.rest.size_hint().exact() {
            Some(rest) => SizeHint::with_exact(came.saturating_add(rest)),
            None => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::{Limited, StreamBody};

    use super::*;

    /// A body of these pieces, which then ends, or never does.
    fn pieces(pieces: &[usize], ends: bool) -> Body {
        let data = |length: &usize| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; *length])));
        let begin = futures_util::stream::iter(pieces.iter().map(data).collect::<Vec<_>>());
        match ends {
            true => Body::boxed(StreamBody::new(begin)),
            false => Body::boxed(StreamBody::new(begin.chain(futures_util::stream::pending()))),
        }
    }

    /// With a length.
    struct Sized(Body, u64);

    impl http_body::Body for Sized {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            let polled = Pin::new(&mut self.0).poll_frame(cx);
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                self.1 -= frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            polled
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.1)
        }
    }

    fn client(name: &str) -> Arc<str> {
        name.into()
    }

    #[tokio::test]
    async fn a_client_has_its_share_and_gives_it_back() {
        let budget = Budget::new();
        let mut shares = Vec::new();
        while let Some(share) = budget.take(&client("a"), 1 << 20) {
            shares.push(share);
        }
        assert!((28..=32).contains(&shares.len()), "{}", shares.len());
        let full = gather(pieces(&[10], true), 100, &client("a"), &budget).await;
        assert!(full.is_ok(), "a little more fits");
        assert!(matches!(
            gather(pieces(&[10], true), 1 << 20, &client("a"), &budget).await,
            Err(Missing::NoRoom)
        ));
        assert!(gather(pieces(&[10], true), 1 << 20, &client("b"), &budget).await.is_ok());
        drop((shares, full));
        assert_eq!(budget.all.available_permits(), ALL_KIB as usize);
        assert!(budget.clients.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_does_not_come_at_once_follows() {
        let budget = Budget::new();
        let (body, share) =
            at_hand(Body::boxed(Sized(pieces(&[3, 4], true), 7)), &client("a"), &budget).await;
        assert!(body.is_full() && share.is_some());
        let (mut body, _) =
            at_hand(Body::boxed(Sized(pieces(&[3, 4], false), 10)), &client("a"), &budget).await;
        assert_eq!((body.is_full(), body.size_hint().exact()), (false, Some(10)));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 7);
        // What breaks off tells it where it did.
        let broken = Limited::new(pieces(&[5, 5], true), 7).map_err(|_| BodyError::Aborted);
        let (body, _) = at_hand(Body::boxed(Sized(Body::boxed(broken), 10)), &client("a"), &budget).await;
        assert!(body.collect().await.is_err());
    }
}
