//! Request bodies that must be here before a Worker is given the request: they are waited for while the
//! request holds no place in a process, and no limit of the Worker runs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cloister_ipc::limits::INLINE_BODY_BYTES;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::{Body, BodyError};

/// Longest wait for the whole of a body.
const PATIENCE: Duration = Duration::from_secs(15);

/// What may be held of all bodies together, in KiB. It is taken for bytes that came, not for what was
/// announced: nobody takes it from others by promises.
pub(super) fn budget() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(256 << 10))
}

/// The whole of a body.
#[derive(Debug)]
pub(super) struct Gathered {
    pub(super) bytes: Bytes,
    /// Of the budget, for as long as the bytes are held.
    pub(super) share: Option<OwnedSemaphorePermit>,
}

/// Why there is no whole body.
#[derive(Debug)]
pub(super) enum Missing {
    /// It broke off: a body that is nothing but its error.
    Broken(Body),
    /// All together hold too much.
    NoRoom,
}

/// True for a body that goes to an `ipc` Worker within the request's message, and is not all here.
pub(super) fn is_awaited(body: &Body) -> bool {
    let exact = body.size_hint().exact();
    exact.is_some_and(|length| length <= INLINE_BODY_BYTES as u64) && !body.is_full()
}

/// Waits for the whole of a body whose length the caller looked at.
pub(super) async fn gather(body: Body, budget: &Arc<Semaphore>) -> Result<Gathered, Missing> {
    within(PATIENCE, body, budget).await
}

async fn within(patience: Duration, mut body: Body, budget: &Arc<Semaphore>) -> Result<Gathered, Missing> {
    let mut whole = BytesMut::new();
    let mut share: Option<OwnedSemaphorePermit> = None;
    let all = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Missing::Broken(Body::boxed(Broken(Some(error)))))?;
            let Ok(data) = frame.into_data() else { continue };
            whole.extend_from_slice(&data);
            let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = u32::try_from((whole.len().div_ceil(1024)).saturating_sub(held)).unwrap_or(u32::MAX);
            let more = Arc::clone(budget).try_acquire_many_owned(more).map_err(|_| Missing::NoRoom)?;
            match &mut share {
                Some(share) => share.merge(more),
                none => *none = Some(more),
            }
        }
        Ok(())
    };
    match tokio::time::timeout(patience, all).await {
        Ok(Ok(())) => Ok(Gathered { bytes: whole.freeze(), share }),
        Ok(Err(missing)) => Err(missing),
        Err(_) => Err(Missing::Broken(Body::boxed(Broken(Some(BodyError::Silent(patience)))))),
    }
}

struct Broken(Option<BodyError>);

impl http_body::Body for Broken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use http_body_util::StreamBody;

    use super::*;

    /// A body of these pieces, which then ends, or never does.
    fn pieces(pieces: &[usize], ends: bool) -> Body {
        let data = |length: &usize| Ok::<_, BodyError>(Frame::data(Bytes::from(vec![b'x'; *length])));
        let begin = futures_util::stream::iter(pieces.iter().map(data).collect::<Vec<_>>());
        let rest = futures_util::stream::pending();
        match ends {
            true => Body::boxed(StreamBody::new(begin)),
            false => Body::boxed(StreamBody::new(begin.chain(rest))),
        }
    }

    #[tokio::test]
    async fn what_is_held_is_what_came() {
        let budget = Arc::new(Semaphore::new(8));
        let gathered = gather(pieces(&[1000, 1000, 1000], true), &budget).await.unwrap();
        assert_eq!((gathered.bytes.len(), budget.available_permits()), (3000, 5));
        drop(gathered);
        // Many that announced much, and sent nothing, take nothing from others.
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let budget = Arc::clone(&budget);
                tokio::spawn(
                    async move { within(Duration::from_millis(200), pieces(&[], false), &budget).await },
                )
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(gather(pieces(&[8192], true), &budget).await.unwrap().bytes.len(), 8192);
        for waiting in waiting {
            assert!(matches!(waiting.await.unwrap(), Err(Missing::Broken(_))));
        }
        assert!(matches!(gather(pieces(&[8193], true), &budget).await, Err(Missing::NoRoom)));
        assert_eq!(budget.available_permits(), 8);
    }
}
