//! Requests and other messages to the Worker.

use std::sync::Arc;

use bytes::Bytes;
use cloister_ipc::borrowed::{self, RequestHead};
use cloister_ipc::frame::{self, FrameError};
use cloister_ipc::head;
use cloister_ipc::limits::INLINE_BODY_BYTES;
use cloister_ipc::worker::{BodyRef, HostBody, RequestId, ToWorker};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use serde::Serialize;
use tokio::sync::oneshot;

use super::state::{AnswerReceiver, OpenBody, OpenRequest, State};
use super::{Connection, FLUSH_BYTES, flush};
use crate::body::{Body, BodyError};
use crate::worker::{Answer, CallError, Caller, absolute_uri};

/// A body made ready for its message.
pub(super) struct Prepared {
    pub(super) tag: HostBody,
    pub(super) inline: Bytes,
    pub(super) held: Option<Body>,
}

/// Takes a small body into the message, keeps any other to be asked for.
pub(super) async fn prepare(body: Body) -> Result<Prepared, BodyError> {
    match Prepared::now(body) {
        Ok(prepared) => Ok(prepared),
        // Boxed: few small bodies are not all here, and no other future shall be larger for it.
        Err(body) => Ok(Prepared::inline(Box::pin(body.collect()).await?.to_bytes())),
    }
}

impl Prepared {
    /// As [`prepare`]; gives the body back when it has to be waited for.
    fn now(mut body: Body) -> Result<Self, Body> {
        let exact = body.size_hint().exact();
        let small = exact.is_some_and(|length| length <= INLINE_BODY_BYTES as u64);
        if !small {
            return Ok(Self::held(body));
        }
        body.take_full().map(Self::inline).ok_or(body)
    }

    /// It follows when the Worker asks for it.
    fn held(body: Body) -> Self {
        let tag = HostBody::Held { length: body.size_hint().exact() };
        Self { tag, inline: Bytes::new(), held: Some(body) }
    }

    fn inline(inline: Bytes) -> Self {
        let tag = if inline.is_empty() { HostBody::Empty } else { HostBody::Inline };
        Self { tag, inline, held: None }
    }
}

impl Connection {
    /// Sends a request and waits for its answer. Dropped before that, it tells the Worker that
    /// nobody waits any more.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        self: &Arc<Self>,
        parts: &Parts,
        body: Body,
        caller: Arc<dyn Caller>,
    ) -> Result<Answer, CallError> {
        let prepared = Prepared::now(body).unwrap_or_else(Prepared::held);
        if !self.has_room() {
            Box::pin(self.room()).await;
        }
        // What a lost connection gives back, for another process.
        let again = prepared.inline.clone();
        let (id, receiver) = self.send(parts, prepared, caller)?;
        let mut waiting = Waiting { connection: self, id, armed: true };
        let result = receiver.await;
        waiting.armed = false;
        match result {
            Ok(Err(CallError::Unsent(body))) if !again.is_empty() => {
                drop(body);
                Err(CallError::Unsent(Body::full(again)))
            }
            Ok(result) => result,
            Err(_) => Err(CallError::Gone),
        }
    }

    /// Appends a request to what waits to be sent.
    fn send(
        self: &Arc<Self>,
        parts: &Parts,
        prepared: Prepared,
        caller: Arc<dyn Caller>,
    ) -> Result<(RequestId, AnswerReceiver), CallError> {
        let Prepared { tag, inline, held } = prepared;
        let headers =
            head::encode(&parts.headers).map_err(|error| CallError::Unsendable(error.to_string()))?;
        let uri = absolute_uri(parts);
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        if state.ended || state.out.broken {
            drop(state);
            return Err(CallError::Unsent(held.unwrap_or_else(|| Body::full(inline))));
        }
        let id = state.last_request + 1;
        let position = state.out.position();
        {
            let head = RequestHead { method: parts.method.as_str(), uri: &uri, headers: &headers };
            let message = borrowed::ToWorker::Request { id, head, context: caller.context(), body: tag };
            self.append(&mut state, &message, &inline)
                .map_err(|error| CallError::Unsendable(error.to_string()))?;
        }
        state.last_request = id;
        if let Some(held) = held {
            state.bodies.insert(BodyRef::Request(id), OpenBody::Held(held));
        }
        let open = OpenRequest {
            answer: Some(sender),
            position,
            caller,
            streaming: false,
            waiting: false,
            timer: None,
        };
        // A Worker with nothing to do begins at once; for one that is busy, messages gather.
        let idle = state.requests.is_empty();
        state.requests.insert(id, open);
        if idle {
            self.write_out(&mut state);
        }
        Ok((id, receiver))
    }

    /// Appends a message; it is sent with others at the end of the batch.
    pub(super) fn append(
        self: &Arc<Self>,
        state: &mut State,
        message: &impl Serialize,
        body: &[u8],
    ) -> Result<(), FrameError> {
        if state.ended || state.out.broken {
            return Ok(());
        }
        frame::append(message, body, &mut state.out.bytes)?;
        if state.out.blocked {
            return Ok(());
        }
        if state.out.waiting() >= FLUSH_BYTES {
            self.write_out(state);
        } else if !state.out.dirty {
            state.out.dirty = true;
            if !flush::remember(self) {
                self.wake_writer();
            }
        }
        Ok(())
    }

    /// Nobody reads the rest of an answer; `wait_until` work goes on.
    pub(super) fn abandon(self: &Arc<Self>, id: RequestId) {
        let waiting = self.state().requests.get(&id).is_some_and(|request| request.waiting);
        if !waiting {
            return self.cancel(id);
        }
        // An encoding of one number can't fail.
        let _ = self.append(&mut self.state(), &ToWorker::Cancel { id }, &[]);
        self.response_over(id);
    }

    /// Forgets a request and tells the Worker, when it is still open.
    pub(super) fn cancel(self: &Arc<Self>, id: RequestId) {
        let trash;
        {
            let mut state = self.state();
            if !state.requests.contains_key(&id) {
                return;
            }
            trash = state.cancel(id);
            // An encoding of one number can't fail.
            let _ = self.append(&mut state, &ToWorker::Cancel { id }, &[]);
        }
        drop(trash);
    }
}

/// Cancels a request whose caller went away.
struct Waiting<'a> {
    connection: &'a Arc<Connection>,
    id: RequestId,
    armed: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.connection.cancel(self.id);
        }
    }
}
