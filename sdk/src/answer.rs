//! From a handler's result to the messages that answer its request.

use std::sync::Arc;

use bytes::Bytes;
use cloister_ipc::head;
use cloister_ipc::worker::{BodyRef, FromWorker, ResponseHead, WorkerBody};
use futures_util::future::LocalBoxFuture;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as HttpBody;

use crate::body::{Body, Outgoing, outgoing, pump};
use crate::dispatch::{Handoff, Placed};
use crate::error::BoxError;
use crate::invocation::{Hold, HoldKind, Invocation};

/// What a handler may return: a response, or a result with one. An error is recorded as the
/// Worker's exception; the client is told nothing of its text.
pub trait Answer {
    /// The response's body.
    type Body: HttpBody<Error: Into<BoxError>> + 'static;

    /// The response or the error.
    fn into_result(self) -> Result<Response<Self::Body>, BoxError>;
}

impl<B: HttpBody<Error: Into<BoxError>> + 'static> Answer for Response<B> {
    type Body = B;

    fn into_result(self) -> Result<Response<B>, BoxError> {
        Ok(self)
    }
}

impl<B: HttpBody<Error: Into<BoxError>> + 'static, E: Into<BoxError>> Answer for Result<Response<B>, E> {
    type Body = B;

    fn into_result(self) -> Result<Response<B>, BoxError> {
        self.map_err(Into::into)
    }
}

/// A response whose unread body the platform shall pass on, under whatever body type the layers
/// above give it.
///
/// A response to a fetch that is returned as it came is passed on in any case. Frameworks that
/// wrap every body (axum) hide that it is unread: give them `cloister::pass_on(response)`.
#[must_use]
pub fn pass_on(mut response: Response<Body>) -> Response<Body> {
    let body = std::mem::take(response.body_mut());
    response.extensions_mut().insert(PassedOn(Placed::new(body)));
    response
}

#[derive(Clone)]
struct PassedOn(Placed<Body>);

/// What is left to do after an answer: write the streamed body.
pub(crate) type Rest = (LocalBoxFuture<'static, ()>, Hold);

/// Answers `invocation`. To be called guarded: it may poll the body.
pub(crate) fn answer<A: Answer>(invocation: &Arc<Invocation>, result: A) -> Option<Rest> {
    let mut response = match result.into_result() {
        Ok(response) => response,
        Err(error) => {
            invocation.fail(&chain(&*error));
            return None;
        }
    };
    if let Some(placed) = response.extensions_mut().remove::<Placed<Handoff>>() {
        hand_off(invocation, &placed, response.status(), response.headers());
        return None;
    }
    let passed = response.extensions_mut().remove::<PassedOn>().and_then(|PassedOn(body)| body.take());
    let (parts, body) = response.into_parts();
    match passed {
        Some(passed) => respond(invocation, &parts, passed),
        None => respond(invocation, &parts, body),
    }
}

fn respond<B>(invocation: &Arc<Invocation>, parts: &Parts, body: B) -> Option<Rest>
where
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
{
    if parts.status.is_informational() && parts.status != StatusCode::SWITCHING_PROTOCOLS {
        invocation.fail(&format!("answered with status {}, which is not final", parts.status));
        return None;
    }
    let tunnel = BodyRef::Tunnel(invocation.id);
    let mut inline = Bytes::new();
    let mut stream = None;
    let body = match outgoing(body, invocation) {
        Err(error) => {
            invocation.fail(&format!("the response's body failed: {}", chain(&*error)));
            return None;
        }
        Ok(Outgoing::Forward(held)) => WorkerBody::Forward(held.forward()),
        Ok(_) if parts.status == StatusCode::SWITCHING_PROTOCOLS => {
            if !invocation.link.expects(tunnel) {
                invocation.fail("answered 101 while nothing waits for the tunnel: see cloister::upgrade");
                return None;
            }
            WorkerBody::Tunnel
        }
        Ok(Outgoing::Empty) => WorkerBody::Empty,
        Ok(Outgoing::Inline(bytes)) => {
            inline = bytes;
            WorkerBody::Inline
        }
        Ok(Outgoing::Stream(source)) => {
            let length = source.length;
            stream = Some((source, invocation.hold(HoldKind::Body)));
            WorkerBody::Stream { length }
        }
    };
    // An upgrade that was not agreed to never comes.
    if body != WorkerBody::Tunnel {
        invocation.link.forget(tunnel);
    }
    let name = BodyRef::Response(invocation.id);
    if stream.is_some() {
        invocation.link.expect(name);
    }
    let id = invocation.id;
    let mut sent = false;
    invocation.answer(|wait_until| {
        let headers =
            head::encode(&parts.headers).map_err(|error| format!("the response's head: {error}"))?;
        let head = ResponseHead { status: parts.status.as_u16(), headers };
        let message = FromWorker::Response { id, head, body, wait_until };
        invocation.link.send(&message, &inline).map_err(|error| format!("the response's head: {error}"))?;
        sent = true;
        Ok(())
    });
    let (source, hold) = stream?;
    if !sent {
        invocation.link.forget(name);
        return None;
    }
    Some((Box::pin(pump(invocation.clone(), name, source)), hold))
}

fn hand_off(invocation: &Arc<Invocation>, placed: &Placed<Handoff>, status: StatusCode, headers: &HeaderMap) {
    // Frameworks add the length of the empty body by themselves.
    let changed = headers.keys().any(|name| name != header::CONTENT_LENGTH) || status != StatusCode::OK;
    if changed {
        invocation.fail("the response of tail() was changed, but never comes this way: use fetch()");
        return;
    }
    let Some(Handoff { target, head, body, inline }) = placed.take() else {
        invocation.fail("the response of tail() was returned twice");
        return;
    };
    let id = invocation.id;
    invocation.link.forget(BodyRef::Tunnel(id));
    invocation.answer(|wait_until| {
        let message = FromWorker::Handoff { id, target, head, body, wait_until };
        invocation
            .link
            .send(&message, &inline)
            .map_err(|error| format!("the request given to tail(): {error}"))
    });
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
