//! Bodies that are counted, limited, and that end an invocation with their last byte.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::Invocation;
use super::headers::strip_trailers;
use crate::body::{Body, BodyError};
use crate::outcome::{Failure, Outcome};
use crate::pool::Lease;

/// Trailers are fields as headers are.
fn clean(frame: &mut Option<Result<Frame<Bytes>, BodyError>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        strip_trailers(trailers);
    }
}

/// A request body on its way to a Worker.
pub(super) struct Limited {
    body: Body,
    invocation: Arc<Invocation>,
    seen: u64,
}

impl Limited {
    /// Counts `body` for the invocation, and breaks it off over the limit.
    pub(super) fn wrap(mut body: Body, invocation: &Arc<Invocation>) -> Body {
        if let Some(bytes) = body.take_full() {
            invocation.request_bytes.store(bytes.len() as u64, Ordering::Relaxed);
            return Body::full(bytes);
        }
        Body::boxed(Self { body, invocation: Arc::clone(invocation), seen: 0 })
    }
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.invocation.awaits_body.store(polled.is_pending(), Ordering::Relaxed);
        let mut frame = ready!(polled);
        clean(&mut frame);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.seen += data.len() as u64;
            self.invocation.request_bytes.store(self.seen, Ordering::Relaxed);
            if let Some(limit) = self.invocation.limits.request_body_bytes
                && self.seen > limit
            {
                let reason = format!("the request body has more than {limit} bytes");
                self.invocation.fail(Outcome::Exception, Failure::BodyTooLarge, reason);
                return Poll::Ready(Some(Err(BodyError::TooLarge(limit))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.invocation.awaits_body.store(false, Ordering::Relaxed);
    }
}

/// A response body: the invocation is answered, and its place in the process free, with its end.
pub(super) struct Accounted {
    body: Body,
    invocation: Option<Arc<Invocation>>,
    lease: Option<Lease>,
}

impl Accounted {
    /// Wraps a body; a body that is all here ends the invocation at once.
    pub(super) fn wrap(mut body: Body, invocation: Arc<Invocation>, lease: Lease) -> Body {
        if let Some(bytes) = body.take_full() {
            invocation.response_bytes.store(bytes.len() as u64, Ordering::Relaxed);
            invocation.settle(true);
            return Body::full(bytes);
        }
        Body::boxed(Self { body, invocation: Some(invocation), lease: Some(lease) })
    }

    /// Ends an answer whose reader was too slow.
    fn cut(&mut self) -> BodyError {
        if let Some(invocation) = &self.invocation {
            let reason = "the answer was not read in time";
            invocation.fail(Outcome::ExceededWallTime, Failure::ExceededWallTime, reason);
        }
        self.body = Body::empty();
        self.end(false);
        BodyError::Aborted
    }

    fn end(&mut self, whole: bool) {
        if let Some(invocation) = self.invocation.take() {
            invocation.settle(whole);
        }
        self.lease = None;
    }
}

impl HttpBody for Accounted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.invocation.as_ref().is_some_and(|invocation| invocation.overdue.load(Ordering::Relaxed)) {
            return Poll::Ready(Some(Err(self.cut())));
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(invocation) = &self.invocation {
            invocation.awaits_reader.store(polled.is_ready(), Ordering::Relaxed);
        }
        let mut frame = ready!(polled);
        clean(&mut frame);
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(invocation)) = (frame.data_ref(), &self.invocation) {
                    invocation.response_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if self.body.is_end_stream() {
                    self.end(true);
                }
            }
            Some(Err(error)) => {
                if let Some(invocation) = &self.invocation {
                    let reason = format!("the response broke off: {error}");
                    invocation.fail(Outcome::Exception, Failure::Exception, reason);
                }
                self.end(false);
            }
            None => self.end(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        if self.invocation.is_some() {
            // HTTP with a known length stops reading at the last byte.
            let whole = self.body.size_hint().exact() == Some(0);
            self.end(whole);
        }
    }
}
