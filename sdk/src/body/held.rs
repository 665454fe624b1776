//! A body that the platform holds until it is read, passed on or dropped.

use std::os::fd::OwnedFd;
use std::os::unix::net;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::{Bytes, BytesMut};
use cloister_ipc::head;
use cloister_ipc::worker::{BodyEnd, BodyRef, FromWorker};
use http_body::{Frame, SizeHint};
use tokio::net::UnixStream;
use tokio_util::io::poll_read_buf;

use crate::error::BodyError;
use crate::invocation::Invocation;

/// What one read of a body may bring, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Room below which a read buffer is renewed, in bytes.
const ROOM_BYTES: usize = 16 * 1024;

/// A held body.
pub(crate) struct Held {
    invocation: Arc<Invocation>,
    name: BodyRef,
    length: Option<u64>,
    seen: u64,
    state: State,
}

enum State {
    Unopened,
    Opening,
    Reading(UnixStream, BytesMut),
    /// The socket has ended; its writer has yet to say that this is the whole body.
    Ending,
    Done,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("name", &self.name).field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl Held {
    pub(crate) fn new(invocation: Arc<Invocation>, name: BodyRef, length: Option<u64>) -> Self {
        Self { invocation, name, length, seen: 0, state: State::Unopened }
    }

    /// True when it can be passed on unread on behalf of `invocation`.
    pub(super) fn can_forward(&self, invocation: &Arc<Invocation>) -> bool {
        matches!(self.state, State::Unopened) && Arc::ptr_eq(&self.invocation, invocation)
    }

    /// Gives it away: its name, for a message that passes it on.
    pub(crate) fn forward(mut self) -> BodyRef {
        self.end();
        self.name
    }

    /// The request it belongs to, and its name, when nobody has opened it.
    pub(crate) fn into_tunnel(mut self) -> Option<Arc<Invocation>> {
        let is_tunnel = matches!(self.name, BodyRef::FetchTunnel(_)) && matches!(self.state, State::Unopened);
        is_tunnel.then(|| {
            self.end();
            self.invocation.clone()
        })
    }

    pub(crate) fn name(&self) -> BodyRef {
        self.name
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self.length.and_then(|length| length.checked_sub(self.seen)) {
            Some(rest) => SizeHint::with_exact(rest),
            None => SizeHint::default(),
        }
    }

    /// Nothing more is due to the platform for it.
    fn end(&mut self) {
        if matches!(self.state, State::Done) {
            return;
        }
        self.state = State::Done;
        if matches!(self.name, BodyRef::FetchResponse(_) | BodyRef::FetchTunnel(_)) {
            self.invocation.link.release();
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let result = ready!(self.poll_read(cx));
        match &result {
            Some(Ok(frame)) if frame.is_data() => {}
            Some(Err(_)) => {
                self.invocation.link.forget(self.name);
                self.end();
            }
            // Trailers or the end.
            _ => self.end(),
        }
        Poll::Ready(result)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let link = &self.invocation.link;
        loop {
            match &mut self.state {
                State::Unopened => {
                    if self.invocation.is_over() {
                        return Poll::Ready(Some(Err(BodyError::Over)));
                    }
                    link.expect(self.name);
                    link.tell(&FromWorker::Open { body: self.name });
                    self.state = State::Opening;
                }
                State::Opening => {
                    let Some(descriptor) = ready!(link.poll_descriptor(self.name, cx)) else {
                        return Poll::Ready(Some(Err(BodyError::Over)));
                    };
                    match stream(descriptor) {
                        Ok(stream) => self.state = State::Reading(stream, BytesMut::new()),
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    }
                }
                State::Reading(stream, buffer) => {
                    if buffer.capacity() < ROOM_BYTES {
                        buffer.reserve(READ_BYTES);
                    }
                    match ready!(poll_read_buf(Pin::new(stream), cx, buffer)) {
                        Ok(0) => self.state = State::Ending,
                        Ok(count) => {
                            self.seen += count as u64;
                            return Poll::Ready(Some(Ok(Frame::data(buffer.split().freeze()))));
                        }
                        Err(error) => return Poll::Ready(Some(Err(error.into()))),
                    }
                }
                State::Ending => {
                    return Poll::Ready(match ready!(link.poll_end(self.name, cx)) {
                        None => Some(Err(BodyError::Over)),
                        Some(BodyEnd::Aborted) => Some(Err(BodyError::Aborted)),
                        Some(BodyEnd::Complete { bytes, .. }) if bytes != self.seen => {
                            Some(Err(BodyError::Length { seen: self.seen, written: bytes }))
                        }
                        Some(BodyEnd::Complete { trailers, .. }) if trailers.is_empty() => None,
                        Some(BodyEnd::Complete { trailers, .. }) => Some(match head::decode(trailers) {
                            Ok(trailers) => Ok(Frame::trailers(trailers)),
                            Err(error) => Err(BodyError::Other(error.into())),
                        }),
                    });
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if matches!(self.state, State::Done) {
            return;
        }
        self.invocation.link.forget(self.name);
        if !self.invocation.is_over() {
            self.invocation.link.tell(&FromWorker::Discard { body: self.name });
        }
        self.end();
    }
}

/// A socket that came by descriptor, on this runtime.
pub(crate) fn stream(descriptor: OwnedFd) -> io::Result<UnixStream> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(io::Error::other("a body was read outside of the Worker's runtime"));
    }
    let stream = net::UnixStream::from(descriptor);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
