//! The body of a response on its way to the Worker: counted, limited, timed.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use super::idle::{Idle, Key};
use super::journal::Entry;
use crate::body::{Body, BodyError};
use crate::client::Sender;
use crate::fields::strip_own;

/// Gives a connection back once its response is over.
#[derive(Debug)]
pub(super) struct Return {
    pub(super) idle: Arc<Idle>,
    pub(super) key: Key,
    pub(super) sender: Sender,
}

/// A response's body.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Body,
    entry: Entry,
    left: Option<Left>,
    back: Option<Return>,
    silence: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    over: bool,
}

#[derive(Debug, Clone, Copy)]
struct Left {
    bytes: u64,
    limit: u64,
}

impl Metered {
    /// `limit` in bytes; `silence` is the longest wait for the next piece.
    pub(super) fn new(
        inner: Body,
        entry: Entry,
        limit: Option<u64>,
        back: Option<Return>,
        silence: Duration,
    ) -> Self {
        let left = limit.map(|limit| Left { bytes: limit, limit });
        let mut metered = Self { inner, entry, left, back, silence, timer: None, over: false };
        if metered.inner.is_end_stream() {
            metered.end();
        }
        metered
    }

    /// The whole of it came.
    fn end(&mut self) {
        self.over = true;
        if let Some(Return { idle, key, sender }) = self.back.take() {
            idle.put(key, sender);
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.over = true;
        self.back = None;
        self.inner = Body::empty();
        self.entry.broke(error.to_string());
        Poll::Ready(Some(Err(error)))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let silence = self.silence;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(silence)));
        timer.as_mut().poll(cx)
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.poll_silence(cx));
                let silent = io::Error::new(io::ErrorKind::TimedOut, "the server fell silent");
                return self.fail(silent.into());
            }
        };
        let silence = self.silence;
        if let Some(timer) = &mut self.timer {
            timer.as_mut().reset(Instant::now() + silence);
        }
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(error)) => self.fail(error),
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    strip_own(trailers);
                }
                let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
                if let Some(left) = &mut self.left {
                    match left.bytes.checked_sub(bytes) {
                        Some(rest) => left.bytes = rest,
                        None => {
                            let limit = left.limit;
                            return self.fail(BodyError::TooLarge(limit));
                        }
                    }
                }
                self.entry.bytes(bytes);
                if self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.over { SizeHint::with_exact(0) } else { self.inner.size_hint() }
    }
}
