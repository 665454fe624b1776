//! Request bodies that are looked at before a Worker is given the request, while the request holds no place
//! in a process and no limit of the Worker runs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cloister_ipc::limits::INLINE_BODY_BYTES;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;

use crate::body::{Body, BodyError};
use crate::peer::peer;

/// Longest wait for the whole of a body that must be here.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest wait for a small body that is most often behind its head; it can follow later as well.
const MOMENT: Duration = Duration::from_millis(50);

/// What is held of all bodies together, and what one client may have of it.
const ALL_BYTES: u64 = 256 << 20;
const CLIENT_BYTES: u64 = ALL_BYTES / 8;

/// What may be held of bodies.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    all: u64,
    /// By client, of those who hold any.
    clients: HashMap<Client, u64>,
}

/// Whose a share is; `None` for whom no address is known.
type Client = Option<IpAddr>;

/// A part of the budget, given back when dropped. It is as large as what came: what is only announced costs its
/// sender nothing, and would keep others out.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    client: Client,
    bytes: u64,
}

impl Budget {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A share of nothing yet, for the client with that address.
    fn share(self: &Arc<Self>, client: &str) -> Share {
        Share { budget: Arc::clone(self), client: client.parse().ok().map(peer), bytes: 0 }
    }
}

impl Share {
    /// Takes room for so many bytes in all, if there is any.
    fn grow(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut held = self.budget.held();
        let has = held.clients.get(&self.client).copied().unwrap_or_default();
        let (all, has) = (held.all.saturating_add(more), has.saturating_add(more));
        if all > ALL_BYTES || has > CLIENT_BYTES {
            return false;
        }
        held.all = all;
        held.clients.insert(self.client, has);
        self.bytes += more;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        held.all = held.all.saturating_sub(self.bytes);
        if let Some(has) = held.clients.get_mut(&self.client) {
            *has = has.saturating_sub(self.bytes);
            if *has == 0 {
                held.clients.remove(&self.client);
            }
        }
    }
}

/// A small body as it rides with the request's message to an `ipc` Worker, if it comes at once. One that does
/// not, or for which there is no room, follows the request.
pub(super) async fn at_hand(body: Body, client: &str, budget: &Arc<Budget>) -> (Body, Option<Share>) {
    let Some(length) = small(&body) else { return (body, None) };
    let mut gathering = Gathering::new(body, length, budget.share(client));
    let whole = tokio::time::timeout(MOMENT, gathering.whole()).await;
    let Gathering { came, over, share, body: rest, .. } = gathering;
    let error = match whole {
        Ok(Ok(())) => return (Body::full(came), Some(share)),
        Ok(Err(Missing::Broken(error))) => Some(error),
        Ok(Err(Missing::NoRoom)) | Err(_) => None,
    };
    (Body::boxed(Prefixed { came: came.into(), over, error, rest }), Some(share))
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
    client: &str,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Share), Missing> {
    let length = body.size_hint().upper().unwrap_or(longest).min(longest);
    let mut gathering = Gathering::new(body, length, budget.share(client));
    match tokio::time::timeout(PATIENCE, gathering.whole()).await {
        Ok(whole) => whole.map(|()| (gathering.came.into(), gathering.share)),
        Err(_) => Err(Missing::Broken(BodyError::Silent(PATIENCE))),
    }
}

/// What came of a body, and the rest of it.
struct Gathering {
    came: Vec<u8>,
    /// Came too, when there was no room for it.
    over: Option<Bytes>,
    /// What was announced.
    length: usize,
    share: Share,
    body: Body,
}

impl Gathering {
    fn new(body: Body, length: u64, share: Share) -> Self {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Self { came: Vec::new(), over: None, length, share, body }
    }

    /// Waits for all of it; may be given up and leaves what came.
    async fn whole(&mut self) -> Result<(), Missing> {
        while let Some(frame) = self.body.frame().await {
            let Ok(data) = frame.map_err(Missing::Broken)?.into_data() else { continue };
            if !self.make_room(data.len()) {
                self.over = Some(data);
                return Err(Missing::NoRoom);
            }
            self.came.extend_from_slice(&data);
        }
        Ok(())
    }

    /// Room for so many bytes more, in steps that double up to what was announced.
    fn make_room(&mut self, more: usize) -> bool {
        let (has, needed) = (self.came.capacity(), self.came.len().saturating_add(more));
        if needed <= has {
            return true;
        }
        let room = needed.max(has.saturating_mul(2).min(self.length));
        if !self.share.grow(room as u64) {
            return false;
        }
        self.came.reserve_exact(room - self.came.len());
        true
    }
}

/// A body of which the beginning came already.
struct Prefixed {
    came: Bytes,
    over: Option<Bytes>,
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
        if let Some(over) = self.over.take() {
            return Poll::Ready(Some(Ok(Frame::data(over))));
        }
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut self.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.came.is_empty() && self.over.is_none() && self.error.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let came = (self.came.len() + self.over.as_ref().map_or(0, Bytes::len)) as u64;
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

    #[tokio::test]
    async fn a_client_has_its_share_and_gives_it_back() {
        const EACH: u64 = 1 << 20;
        let budget = Budget::new();
        let length = usize::try_from(EACH).unwrap();
        let take = async |client: &str| gather(pieces(&[length], true), EACH, client, &budget).await;
        let mut kept = Vec::new();
        while let Ok(one) = take("2001:db8::1").await {
            kept.push(one);
        }
        assert_eq!(kept.len(), 32);
        // Whoever has one address of a network has all of them.
        assert!(matches!(take("2001:db8::ffff:1").await, Err(Missing::NoRoom)));
        let body = Body::boxed(Sized(pieces(&[5], true), 5));
        let (body, _) = at_hand(body, "2001:db8::2", &budget).await;
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), 5, "what finds no room follows");
        for other in ["2001:db8:0:1::1", "192.0.2.1", "192.0.2.2", ""] {
            kept.push(take(other).await.unwrap());
        }
        assert_eq!(budget.held().all, 36 * EACH);
        drop(kept);
        assert!(budget.held().all == 0 && budget.held().clients.is_empty());
    }

    /// What is announced and does not come keeps nobody out.
    #[tokio::test]
    async fn what_is_only_announced_takes_no_room() {
        let budget = Budget::new();
        let idle = || Body::boxed(Sized(pieces(&[10], false), 1 << 20));
        let idle = (0..1000).map(|_| gather(idle(), 1 << 20, "192.0.2.1", &budget));
        let mut idle = Box::pin(futures_util::future::join_all(idle));
        assert!(futures_util::poll!(&mut idle).is_pending());
        assert_eq!(budget.held().all, 10_000);
        assert!(gather(pieces(&[1 << 20], true), 1 << 20, "192.0.2.1", &budget).await.is_ok());
        drop(idle);
        assert_eq!(budget.held().all, 0);
    }

    #[tokio::test]
    async fn a_body_takes_no_more_room_than_it_announced() {
        let budget = Budget::new();
        let parts = vec![1000; 100];
        let body = Body::boxed(Sized(pieces(&parts, true), 100_000));
        let (bytes, share) = gather(body, 1 << 20, "192.0.2.1", &budget).await.unwrap();
        assert_eq!((bytes.len(), share.bytes), (100_000, 100_000));
    }

    #[tokio::test]
    async fn what_does_not_come_at_once_follows() {
        let budget = Budget::new();
        let (body, share) = at_hand(Body::boxed(Sized(pieces(&[3, 4], true), 7)), "192.0.2.1", &budget).await;
        assert!(body.is_full() && share.is_some());
        let (mut body, _) =
            at_hand(Body::boxed(Sized(pieces(&[3, 4], false), 10)), "192.0.2.1", &budget).await;
        assert_eq!((body.is_full(), body.size_hint().exact()), (false, Some(10)));
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 7);
        // What breaks off tells it where it did.
        let broken = Limited::new(pieces(&[5, 5], true), 7).map_err(|_| BodyError::Aborted);
        let (body, _) = at_hand(Body::boxed(Sized(Body::boxed(broken), 10)), "192.0.2.1", &budget).await;
        assert!(body.collect().await.is_err());
    }
}
