//! How a body leaves the Worker: behind its message, passed on unread, or by a socket of its own.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use cloister_ipc::limits::INLINE_BODY_BYTES;
use http::HeaderMap;
use http_body::Body as HttpBody;

use super::{Body, Held, Source};
use crate::error::BoxError;
use crate::invocation::Invocation;

/// A body on its way out.
pub(crate) enum Outgoing<B> {
    /// There is none.
    Empty,
    /// All of it, at most [`INLINE_BODY_BYTES`].
    Inline(Bytes),
    /// One that the platform holds.
    Forward(Held),
    /// One that is long or not all here.
    Stream(Source<B>),
}

fn inline<B>(bytes: Bytes) -> Outgoing<B> {
    if bytes.is_empty() { Outgoing::Empty } else { Outgoing::Inline(bytes) }
}

/// Finds the cheapest way for `body`. What is ready of it is taken now; a body that is not all
/// ready, or is too long, is streamed.
pub(crate) fn outgoing<B>(body: B, invocation: &Arc<Invocation>) -> Result<Outgoing<B>, BoxError>
where
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
{
    let mut body = Some(body);
    if let Some(Some(own)) = (&mut body as &mut dyn Any).downcast_mut::<Option<Body>>() {
        if let Some(held) = own.take_held() {
            if held.can_forward(invocation) {
                return Ok(Outgoing::Forward(held));
            }
            *own = Body::held(held);
        } else if let Some(bytes) = own.take_full() {
            if bytes.len() <= INLINE_BODY_BYTES {
                return Ok(inline(bytes));
            }
            *own = Body::full(bytes);
        }
    }
    match body {
        Some(body) => probe(body),
        None => Ok(Outgoing::Empty),
    }
}

/// Takes what is ready of `body`.
fn probe<B>(body: B) -> Result<Outgoing<B>, BoxError>
where
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
{
    let length = body.size_hint().exact();
    if body.is_end_stream() {
        return Ok(Outgoing::Empty);
    }
    let mut source = Source { first: Bytes::new(), trailers: None, length, body: Box::pin(body) };
    if length.is_some_and(|length| length > INLINE_BODY_BYTES as u64) {
        return Ok(Outgoing::Stream(source));
    }
    let mut gathered = BytesMut::new();
    loop {
        // Nobody is woken: a body that is pending is polled again as soon as it has its socket.
        let polled = source.body.as_mut().poll_frame(&mut Context::from_waker(Waker::noop()));
        let frame = match polled {
            Poll::Pending => break,
            Poll::Ready(None) => {
                return Ok(inline(join(source.first, gathered)));
            }
            Poll::Ready(Some(frame)) => frame.map_err(Into::into)?,
        };
        match frame.into_data() {
            Ok(mut data) => {
                let data = data.copy_to_bytes(data.remaining());
                if source.first.is_empty() && gathered.is_empty() {
                    source.first = data;
                } else {
                    gathered.extend_from_slice(&data);
                }
            }
            Err(frame) => {
                source.trailers = Some(frame.into_trailers().unwrap_or_else(|_| HeaderMap::new()));
                break;
            }
        }
        let taken = source.first.len() + gathered.len();
        if taken > INLINE_BODY_BYTES {
            break;
        }
        if source.body.is_end_stream() {
            return Ok(inline(join(source.first, gathered)));
        }
    }
    source.first = join(source.first, gathered);
    Ok(Outgoing::Stream(source))
}

fn join(first: Bytes, rest: BytesMut) -> Bytes {
    if rest.is_empty() {
        return first;
    }
    let mut all = BytesMut::with_capacity(first.len() + rest.len());
    all.extend_from_slice(&first);
    all.extend_from_slice(&rest);
    all.freeze()
}
