//! Bodies that travel by descriptor, in both directions.

use std::pin::Pin;
use std::sync::{Arc, MutexGuard, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cloister_ipc::control::Control as Record;
use cloister_ipc::head;
use cloister_ipc::worker::{
    BodyEnd, BodyRef, FetchError, FetchId, HostBody, ResponseHead, ToWorker, WorkerBody,
};
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Connection;
use super::control::pair;
use super::receive::{Made, known};
use super::send::{Prepared, prepare};
use super::state::{OpenBody, State, Trash, Violation};
use crate::body::{Body, BodyError};
use crate::worker::Tunnel;

/// What one read of a body may bring, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

impl Connection {
    /// Makes what a body tag of the Worker stands for: a tunnel where `tunnel` says so, else a body.
    /// Drops nothing that it took out of the state, which is locked.
    pub(super) fn make(
        self: &Arc<Self>,
        state: &mut State,
        whose: BodyRef,
        body: WorkerBody,
        inline: Bytes,
        tunnel: bool,
    ) -> Result<Made, Violation> {
        let is_tunnel = match body {
            WorkerBody::Tunnel => true,
            WorkerBody::Forward(held) => matches!(state.bodies.get(&held), Some(OpenBody::HeldTunnel(_))),
            _ => false,
        };
        if is_tunnel != tunnel {
            let text =
                if tunnel { "switches protocols without a tunnel" } else { "gives a tunnel for a body" };
            return Err(Violation::new(text));
        }
        match body {
            WorkerBody::Empty => Ok(Made::Body(Body::empty())),
            WorkerBody::Inline => Ok(Made::Body(Body::full(inline))),
            WorkerBody::Stream { length } => {
                let stream = self.give_socket(whose)?;
                let (sender, receiver) = oneshot::channel();
                state.bodies.insert(whose, OpenBody::Reading(Some(sender)));
                let reader = SocketBody {
                    connection: Arc::clone(self),
                    whose,
                    stream,
                    buffer: BytesMut::new(),
                    seen: 0,
                    length,
                    end: receiver,
                    phase: Phase::Bytes,
                };
                Ok(Made::Body(Body::boxed(reader)))
            }
            WorkerBody::Forward(held) => match state.bodies.remove(&held) {
                Some(OpenBody::Held(body)) => Ok(Made::Body(body)),
                Some(OpenBody::HeldTunnel(tunnel)) => Ok(Made::Tunnel(tunnel)),
                Some(other) => {
                    state.bodies.insert(held, other);
                    Err(Violation(format!("forwards {held:?}, which it opened")))
                }
                None => Err(Violation(format!("forwards {held:?}, which is not held"))),
            },
            WorkerBody::Tunnel => {
                let BodyRef::Response(id) = whose else {
                    return Err(Violation::new("asks for a tunnel where there can't be one"));
                };
                let stream = self.give_socket(BodyRef::Tunnel(id))?;
                Ok(Made::Tunnel(Tunnel::new(ServedTunnel { stream, connection: Arc::clone(self), id })))
            }
        }
    }

    /// Sends the Worker one end of a new socket pair.
    fn give_socket(&self, body: BodyRef) -> Result<UnixStream, Violation> {
        let lacking = |error: std::io::Error| Violation(format!("can't be given a socket: {error}"));
        let (ours, theirs) = pair().map_err(lacking)?;
        let record = Record::Body { connection: self.id, body };
        if self.control.send(&record, theirs).map_err(lacking)? {
            self.wake_writer();
        }
        UnixStream::from_std(ours).map_err(lacking)
    }

    /// The Worker wants to read a held body.
    pub(super) fn open_body(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        body: BodyRef,
    ) -> Result<(), Violation> {
        match state.bodies.remove(&body) {
            Some(OpenBody::Held(held)) => match self.give_socket(body) {
                Ok(stream) => {
                    let task = tokio::spawn(pump(Arc::downgrade(self), body, held, stream));
                    state.bodies.insert(body, OpenBody::Writing(task.abort_handle()));
                    Ok(())
                }
                Err(violation) => {
                    // Whoever writes it may wait for this very lock.
                    drop(state);
                    drop(held);
                    Err(violation)
                }
            },
            Some(OpenBody::HeldTunnel(tunnel)) => match self.give_socket(body) {
                Ok(stream) => {
                    // Ends when both directions have; an error is the end of the tunnel as well.
                    tokio::spawn(async move {
                        let _ = tunnel.join(Tunnel::new(stream)).await;
                    });
                    Ok(())
                }
                Err(violation) => {
                    drop(state);
                    drop(tunnel);
                    Err(violation)
                }
            },
            Some(other) => {
                state.bodies.insert(body, other);
                Err(Violation(format!("opens {body:?}, which is not held")))
            }
            None => known(&mut state, body),
        }
    }

    /// Tells the Worker how its fetch went.
    pub(super) async fn fetched(self: Arc<Self>, fetch: FetchId, result: Result<Response<Body>, FetchError>) {
        let result = match result {
            Ok(mut response) => {
                let tunnel = Tunnel::take(&mut response);
                let (parts, body) = response.into_parts();
                let headers = head::encode(&parts.headers);
                match (headers, prepare(body).await) {
                    (Ok(headers), Ok(body)) => {
                        Ok((ResponseHead { status: parts.status.as_u16(), headers }, body, tunnel))
                    }
                    (Err(error), _) => Err(FetchError::Network(format!("the response: {error}"))),
                    (_, Err(error)) => Err(FetchError::Network(error.to_string())),
                }
            }
            Err(error) => Err(error),
        };
        self.room().await;
        let mut trash = Trash::default();
        let mut state = self.state();
        if !state.fetches.contains_key(&fetch) {
            return;
        }
        let sent = match result {
            Ok((head, Prepared { tag, inline, held }, tunnel)) => {
                let body = if tunnel.is_some() { HostBody::Tunnel } else { tag };
                if let Some(tunnel) = tunnel {
                    state.bodies.insert(BodyRef::FetchTunnel(fetch), OpenBody::HeldTunnel(tunnel));
                }
                if let Some(held) = held {
                    state.bodies.insert(BodyRef::FetchResponse(fetch), OpenBody::Held(held));
                }
                self.append(&mut state, &ToWorker::Response { fetch, head, body }, &inline)
            }
            Err(error) => {
                state.fetch_over(fetch, &mut trash);
                self.append(&mut state, &ToWorker::FetchFailed { fetch, error }, &[])
            }
        };
        if let Err(error) = sent {
            state.fetch_over(fetch, &mut trash);
            let error = FetchError::Network(format!("the response is too large for a Worker: {error}"));
            let _ = self.append(&mut state, &ToWorker::FetchFailed { fetch, error }, &[]);
        }
        fetch_settled(&mut state, fetch);
        drop(state);
        drop(trash);
    }

    /// A held body was written to its end.
    fn pumped(self: &Arc<Self>, body: BodyRef, end: BodyEnd) {
        let mut state = self.state();
        if state.bodies.remove(&body).is_none() {
            return;
        }
        let trailers = ToWorker::BodyEnd { body, end };
        if self.append(&mut state, &trailers, &[]).is_err() {
            let _ = self.append(&mut state, &ToWorker::BodyEnd { body, end: BodyEnd::Aborted }, &[]);
        }
        if let BodyRef::FetchResponse(fetch) = body {
            fetch_settled(&mut state, fetch);
        }
    }

    /// A body from the Worker is over for its reader.
    fn read_over(self: &Arc<Self>, body: BodyRef, whole: bool) {
        match body {
            BodyRef::Response(id) if whole => self.response_over(id),
            BodyRef::Response(id) => self.abandon(id),
            other => {
                let mut state = self.state();
                state.bodies.remove(&other);
            }
        }
    }
}

/// Forgets a fetch of which nothing is open any more.
fn fetch_settled(state: &mut State, fetch: FetchId) {
    let bodies = [BodyRef::FetchRequest(fetch), BodyRef::FetchResponse(fetch), BodyRef::FetchTunnel(fetch)];
    if !bodies.iter().any(|body| state.bodies.contains_key(body)) {
        state.fetches.remove(&fetch);
    }
}

/// Writes a held body to the Worker.
async fn pump(connection: Weak<Connection>, whose: BodyRef, mut body: Body, mut stream: UnixStream) {
    let mut bytes = 0u64;
    let mut trailers = Vec::new();
    let end = loop {
        match body.frame().await {
            None => break BodyEnd::Complete { bytes, trailers },
            Some(Err(_)) => break BodyEnd::Aborted,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if stream.write_all(&data).await.is_err() {
                        break BodyEnd::Aborted;
                    }
                    bytes += data.len() as u64;
                }
                Err(frame) => {
                    if let Ok(Ok(block)) = frame.into_trailers().map(|trailers| head::encode(&trailers)) {
                        trailers = block;
                    }
                }
            },
        }
    };
    let _ = stream.shutdown().await;
    drop(body);
    if let Some(connection) = connection.upgrade() {
        connection.pumped(whose, end);
    }
}

enum Phase {
    Bytes,
    End,
    Over,
}

/// A body that the Worker writes to a socket.
struct SocketBody {
    connection: Arc<Connection>,
    whose: BodyRef,
    stream: UnixStream,
    buffer: BytesMut,
    seen: u64,
    length: Option<u64>,
    end: oneshot::Receiver<BodyEnd>,
    phase: Phase,
}

impl SocketBody {
    fn finish(
        &mut self,
        end: Result<BodyEnd, oneshot::error::RecvError>,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        self.phase = Phase::Over;
        let (bytes, trailers) = match end {
            Ok(BodyEnd::Complete { bytes, trailers }) => (bytes, trailers),
            Ok(BodyEnd::Aborted) | Err(_) => {
                self.connection.read_over(self.whose, false);
                return Some(Err(BodyError::Aborted));
            }
        };
        let wrong = if bytes != self.seen || self.length.is_some_and(|length| length != bytes) {
            let (seen, length) = (self.seen, self.length);
            Some(format!("wrote {seen} bytes of {:?}, said {bytes}, announced {length:?}", self.whose))
        } else {
            None
        };
        let trailers = match (wrong, head::decode(trailers)) {
            (None, Ok(trailers)) => trailers,
            (wrong, decoded) => {
                let trailer_error = decoded.err().map(|error| format!("trailers: {error}"));
                let text = wrong.or(trailer_error).unwrap_or_default();
                self.connection.violated(Violation(text));
                return Some(Err(BodyError::Aborted));
            }
        };
        self.connection.read_over(self.whose, true);
        (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)))
    }
}

impl HttpBody for SocketBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            match this.phase {
                Phase::Bytes => {
                    this.buffer.reserve(CHUNK_BYTES);
                    let read =
                        tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.buffer);
                    match ready!(read) {
                        Ok(0) => this.phase = Phase::End,
                        Ok(count) => {
                            this.seen += count as u64;
                            if this.length.is_some_and(|length| this.seen > length) {
                                let text = format!("writes more of {:?} than it announced", this.whose);
                                this.phase = Phase::Over;
                                this.connection.violated(Violation(text));
                                return Poll::Ready(Some(Err(BodyError::Aborted)));
                            }
                            return Poll::Ready(Some(Ok(Frame::data(this.buffer.split().freeze()))));
                        }
                        Err(error) => {
                            this.phase = Phase::Over;
                            this.connection.read_over(this.whose, false);
                            return Poll::Ready(Some(Err(error.into())));
                        }
                    }
                }
                Phase::End => {
                    let end = ready!(Pin::new(&mut this.end).poll(cx));
                    return Poll::Ready(this.finish(end));
                }
                Phase::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.seen)))
    }
}

impl Drop for SocketBody {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Over) {
            // HTTP with a known length stops reading at the last byte.
            let whole = self.length == Some(self.seen);
            self.connection.read_over(self.whose, whole);
        }
    }
}

/// Our end of the tunnel of a request; the request is open as long as it is.
struct ServedTunnel {
    stream: UnixStream,
    connection: Arc<Connection>,
    id: cloister_ipc::worker::RequestId,
}

impl Drop for ServedTunnel {
    fn drop(&mut self) {
        self.connection.response_over(self.id);
    }
}

impl AsyncRead for ServedTunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for ServedTunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
