//! A request body that can be taken back.
//!
//! A client that still sends when it is refused often never sees why: the connection is closed
//! under it. So what is left of a refused upload is read and thrown away, within bounds.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;

/// Longest time a refused client may go on sending.
const DRAIN_TIME: Duration = Duration::from_secs(30);

/// A body whose reading may end before it does.
#[derive(Debug, Clone)]
pub(super) struct Lent(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    /// What was looked at and not yet read.
    front: Option<Bytes>,
    body: Body,
    /// Bytes that may still come before the head of a part ends; `None` within a part.
    head: Option<usize>,
}

/// Bytes that may come until the head of a part ends: it, and what was read with it of the part itself. The
/// parser keeps all of them, and looks through all of them again at each that comes.
const HEAD_BYTES: usize = 1 << 20;

impl Lent {
    /// Lends a body.
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Mutex::new(Inner { front: None, body, head: None })))
    }

    /// The boundary that a multipart body itself begins with. Cloudflare's own client announces some
    /// uploads as `application/javascript`, and so without it.
    pub(super) async fn boundary(&mut self) -> Option<String> {
        const LINE_BYTES: usize = 2 + 70 + 2;
        let mut start = Vec::new();
        while start.len() < LINE_BYTES {
            let Some(Ok(frame)) = self.frame().await else { break };
            start.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
        let line = memchr::memchr(b'\r', &start)
            .and_then(|end| start.get(..end))
            .and_then(|line| line.strip_prefix(b"--"));
        let boundary = line.and_then(|line| std::str::from_utf8(line).ok()).filter(|text| {
            (1..=70).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(&b))
        });
        let boundary = boundary.map(str::to_owned);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).front = Some(start.into());
        boundary
    }

    /// Says whether the head of a part is being read: it is bounded.
    pub(super) fn reads_head(&self, head: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).head = head.then_some(HEAD_BYTES);
    }

    /// Reads and drops what is left, at most `limit` bytes.
    pub(super) async fn drain(mut self, limit: u64) {
        self.reads_head(false);
        let draining = async {
            let mut seen = 0u64;
            while let Some(Ok(frame)) = self.frame().await {
                seen = seen.saturating_add(frame.data_ref().map_or(0, |data| data.len() as u64));
                if seen > limit {
                    break;
                }
            }
        };
        // A client that takes longer loses its connection, as it would have at once.
        let _ = tokio::time::timeout(DRAIN_TIME, draining).await;
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.head == Some(0) {
            return Poll::Ready(Some(Err(axum::Error::new("the head of a part is too long"))));
        }
        let polled = match inner.front.take() {
            Some(front) if !front.is_empty() => Poll::Ready(Some(Ok(Frame::data(front)))),
            _ => Pin::new(&mut inner.body).poll_frame(cx),
        };
        if let (Some(left), Poll::Ready(Some(Ok(frame)))) = (&mut inner.head, &polled) {
            *left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.front.is_none() && inner.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
