//! Messages from a Worker: every one is checked before it has an effect.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloister_ipc::limits::{FETCHES_IN_FLIGHT, TARGET_BYTES};
use cloister_ipc::worker::{
    BodyEnd, BodyRef, FetchError, FetchId, FromWorker, RequestHead, RequestId, ResponseHead, Target,
    ToWorker, WorkerBody,
};
use cloister_ipc::{PROTOCOL, head};
use http::{Method, Request, Response, StatusCode, Uri};

use super::state::{AnswerSender, OpenBody, OpenFetch, State, Trash, Violation};
use super::{Connection, EXCEPTION_BYTES, WAIT_UNTIL_SECONDS};
use crate::body::Body;
use crate::worker::{Answer, CallError, Handoff, NO_CONNECT, Tunnel};

/// What a body tag of the Worker stands for.
pub(super) enum Made {
    Body(Body),
    Tunnel(Tunnel),
}

/// A checked answer, and what is left open after it.
struct Checked {
    answer: Answer,
    streaming: bool,
}

impl Connection {
    /// Acts on one message. An error is the end of the Worker.
    pub(super) fn receive(self: &Arc<Self>, message: FromWorker, inline: Bytes) -> Result<(), Violation> {
        let mut state = self.state();
        if state.ended {
            return Ok(());
        }
        let hello = matches!(message, FromWorker::Hello { .. });
        if hello == state.greeted {
            let text = if hello { "said hello twice" } else { "sent a message before its hello" };
            return Err(Violation::new(text));
        }
        let carries = matches!(
            message,
            FromWorker::Response { body: WorkerBody::Inline, .. }
                | FromWorker::Handoff { body: WorkerBody::Inline, .. }
                | FromWorker::Fetch { body: WorkerBody::Inline, .. }
        );
        if !carries && !inline.is_empty() {
            return Err(Violation::new("sent body bytes with a message that has none"));
        }
        match message {
            FromWorker::Hello { protocol } if protocol == PROTOCOL => {
                self.greet(&mut state);
                Ok(())
            }
            FromWorker::Hello { protocol } => Err(Violation(format!(
                "speaks protocol {protocol}, this supervisor {PROTOCOL}: build it with a matching SDK"
            ))),
            FromWorker::Response { id, head, body, wait_until } => {
                let Some(answer) = take_answer(&mut state, id)? else { return Ok(()) };
                let checked = self.response(&mut state, id, head, body, inline);
                self.answered(state, id, answer, checked, wait_until)
            }
            FromWorker::Handoff { id, target, head, body, wait_until } => {
                let Some(answer) = take_answer(&mut state, id)? else { return Ok(()) };
                let checked = self.handoff(&mut state, id, target, head, body, inline);
                self.answered(state, id, answer, checked, wait_until)
            }
            FromWorker::Exception { id, message } => {
                if message.len() > EXCEPTION_BYTES {
                    return Err(Violation(format!("exception text of {} bytes", message.len())));
                }
                let Some(answer) = take_answer(&mut state, id)? else { return Ok(()) };
                let trash = state.over(id);
                drop(state);
                drop(trash);
                let _ = answer.send(Err(CallError::Exception(message)));
                Ok(())
            }
            FromWorker::Fetch { fetch, request, target, head, body } => {
                self.fetch(state, fetch, request, target, head, body, inline)
            }
            FromWorker::Open { body } => self.open_body(state, body),
            FromWorker::Discard { body } => {
                let mut trash = Trash::default();
                match state.bodies.remove(&body) {
                    Some(reading @ OpenBody::Reading(_)) => {
                        state.bodies.insert(body, reading);
                        return Err(Violation(format!("discards {body:?}, which it writes")));
                    }
                    Some(other) => trash.body(Some(other)),
                    None => known(&mut state, body)?,
                }
                drop(state);
                drop(trash);
                Ok(())
            }
            FromWorker::BodyEnd { body, end } => body_end(&mut state, body, end),
            FromWorker::CancelFetch { fetch } => {
                known(&mut state, BodyRef::FetchRequest(fetch))?;
                let mut trash = Trash::default();
                state.fetch_over(fetch, &mut trash);
                drop(state);
                drop(trash);
                Ok(())
            }
            FromWorker::Done { id } => {
                let waiting = state.requests.get_mut(&id).filter(|request| request.waiting);
                let Some(request) = waiting else {
                    return if state.was_cancelled(id) {
                        Ok(())
                    } else {
                        known(&mut state, BodyRef::Request(id))
                    };
                };
                request.waiting = false;
                if let Some(timer) = request.timer.take() {
                    timer.abort();
                }
                let trash = self.maybe_over(&mut state, id);
                drop(state);
                drop(trash);
                Ok(())
            }
        }
    }

    /// Hands an answer to who waits, and closes what it ends.
    fn answered(
        self: &Arc<Self>,
        mut state: std::sync::MutexGuard<'_, State>,
        id: RequestId,
        answer: AnswerSender,
        checked: Result<Checked, Violation>,
        wait_until: bool,
    ) -> Result<(), Violation> {
        let checked = match checked {
            Ok(checked) => checked,
            Err(violation) => {
                drop(state);
                let _ = answer.send(Err(CallError::BadResponse(violation.0.clone())));
                return Err(violation);
            }
        };
        state.useful();
        if let Some(request) = state.requests.get_mut(&id) {
            request.streaming = checked.streaming;
            request.waiting = wait_until;
        }
        let trash = self.maybe_over(&mut state, id);
        drop(state);
        // The caller's side first, so that what the request used ends with its answer.
        let refused = answer.send(Ok(checked.answer));
        drop(trash);
        drop(refused);
        Ok(())
    }

    /// Forgets a request when neither its response nor its `wait_until` work goes on. The time of
    /// the latter runs from the end of the former.
    pub(super) fn maybe_over(self: &Arc<Self>, state: &mut State, id: RequestId) -> Trash {
        let Some(request) = state.requests.get_mut(&id) else { return Trash::default() };
        if request.streaming {
            return Trash::default();
        }
        if !request.waiting {
            return state.over(id);
        }
        // Without a runtime the supervisor is ending, and every Worker with it.
        if request.timer.is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let connection = Arc::downgrade(self);
            let timer = runtime.spawn(async move {
                tokio::time::sleep(Duration::from_secs(WAIT_UNTIL_SECONDS)).await;
                if let Some(connection) = connection.upgrade() {
                    connection.cancel(id);
                }
            });
            request.timer = Some(timer.abort_handle());
        }
        Trash::default()
    }

    /// The response's body or tunnel ended.
    pub(super) fn response_over(self: &Arc<Self>, id: RequestId) {
        let mut state = self.state();
        state.bodies.remove(&BodyRef::Response(id));
        if let Some(request) = state.requests.get_mut(&id) {
            request.streaming = false;
        }
        let trash = self.maybe_over(&mut state, id);
        drop(state);
        drop(trash);
    }

    fn response(
        self: &Arc<Self>,
        state: &mut State,
        id: RequestId,
        head: ResponseHead,
        body: WorkerBody,
        inline: Bytes,
    ) -> Result<Checked, Violation> {
        let status = StatusCode::from_u16(head.status)
            .map_err(|_| Violation(format!("answered with status {}", head.status)))?;
        let headers = head::decode(Bytes::from(head.headers))
            .map_err(|error| Violation(format!("response headers: {error}")))?;
        let tunnel = status == StatusCode::SWITCHING_PROTOCOLS;
        if status.is_informational() && !tunnel {
            return Err(Violation(format!("answered with status {status}, which is not final")));
        }
        let streaming = matches!(body, WorkerBody::Stream { .. } | WorkerBody::Tunnel);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        match self.make(state, BodyRef::Response(id), body, inline, tunnel)? {
            Made::Body(body) => *response.body_mut() = body,
            Made::Tunnel(tunnel) => {
                response.extensions_mut().insert(tunnel);
            }
        }
        Ok(Checked { answer: Answer::Response(Box::new(response)), streaming })
    }

    fn handoff(
        self: &Arc<Self>,
        state: &mut State,
        id: RequestId,
        target: Target,
        head: Option<RequestHead>,
        body: WorkerBody,
        inline: Bytes,
    ) -> Result<Checked, Violation> {
        if matches!(target, Target::Egress) {
            return Err(Violation::new("hands a request to the egress filter: only Workers can answer it"));
        }
        if matches!(body, WorkerBody::Stream { .. } | WorkerBody::Tunnel) {
            return Err(Violation::new("hands a request on with a body that is still to be written"));
        }
        let head = match head {
            Some(head) => Some(head_of(head)?.map_err(Violation)?.into_parts().0),
            None => None,
        };
        let Made::Body(body) = self.make(state, BodyRef::Response(id), body, inline, false)? else {
            return Err(Violation::new("hands a request on with a tunnel for a body"));
        };
        let handoff = Handoff { target, head, body };
        Ok(Checked { answer: Answer::Handoff(Box::new(handoff)), streaming: false })
    }

    #[allow(clippy::too_many_arguments)] // the fields of one message
    fn fetch(
        self: &Arc<Self>,
        mut state: std::sync::MutexGuard<'_, State>,
        fetch: FetchId,
        request: RequestId,
        target: Target,
        head: RequestHead,
        body: WorkerBody,
        inline: Bytes,
    ) -> Result<(), Violation> {
        if fetch <= state.last_fetch {
            return Err(Violation(format!("numbers a fetch {fetch} after {}", state.last_fetch)));
        }
        state.last_fetch = fetch;
        if state.fetches.len() >= FETCHES_IN_FLIGHT {
            return Err(Violation(format!("has more than {FETCHES_IN_FLIGHT} fetches in flight")));
        }
        let Some(open) = state.requests.get(&request) else {
            if !state.given_out(BodyRef::Request(request)) {
                return Err(Violation(format!("fetches for request {request}, which never was")));
            }
            let error = FetchError::Invalid("the request is over".into());
            let _ = self.append(&mut state, &ToWorker::FetchFailed { fetch, error }, &[]);
            return state.stray();
        };
        let caller = Arc::clone(&open.caller);
        let outgoing = head_of(head)?;
        let Made::Body(body) = self.make(&mut state, BodyRef::FetchRequest(fetch), body, inline, false)?
        else {
            return Err(Violation::new("fetches with a tunnel for a body"));
        };
        let connection = Arc::clone(self);
        let task = tokio::spawn(async move {
            let result = match outgoing {
                Ok(outgoing) => caller.fetch(target, outgoing.map(|()| body)).await,
                // It takes a place, a subrequest and its time as any other that is refused.
                Err(text) => {
                    drop(body);
                    Err(caller.refuse(text).await)
                }
            };
            connection.fetched(fetch, result).await;
        });
        state.fetches.insert(fetch, OpenFetch { request, task: task.abort_handle() });
        Ok(())
    }
}

/// The sender of a request's answer; `None` when the request was cancelled.
fn take_answer(state: &mut State, id: RequestId) -> Result<Option<AnswerSender>, Violation> {
    if let Some(request) = state.requests.get_mut(&id) {
        return match request.answer.take() {
            Some(answer) => Ok(Some(answer)),
            None => Err(Violation(format!("answers request {id} twice"))),
        };
    }
    if state.was_cancelled(id) {
        return Ok(None);
    }
    Err(Violation(format!("answers request {id}, which is not open")))
}

/// Accepts a message about something that is over, but was given out once.
pub(super) fn known(state: &mut State, body: BodyRef) -> Result<(), Violation> {
    if state.given_out(body) {
        state.stray()
    } else {
        Err(Violation(format!("speaks of {body:?}, which never was")))
    }
}

fn body_end(state: &mut State, body: BodyRef, end: BodyEnd) -> Result<(), Violation> {
    match state.bodies.get_mut(&body) {
        Some(OpenBody::Reading(sender)) => match sender.take() {
            Some(sender) => {
                // The reader may be gone: then nobody wants to know.
                let _ = sender.send(end);
                Ok(())
            }
            None => Err(Violation(format!("ends {body:?} twice"))),
        },
        Some(_) => Err(Violation(format!("ends {body:?}, which it does not write"))),
        None => known(state, body),
    }
}

/// A request from its head. The outer error is a violation; the inner one a mistake of the Worker.
fn head_of(head: RequestHead) -> Result<Result<Request<()>, String>, Violation> {
    let headers = head::decode(Bytes::from(head.headers))
        .map_err(|error| Violation(format!("request headers: {error}")))?;
    if head.uri.len() > TARGET_BYTES {
        return Err(Violation(format!(
            "asks for a URI of {} bytes, the limit is {TARGET_BYTES}",
            head.uri.len()
        )));
    }
    let Ok(method) = Method::from_bytes(head.method.as_bytes()) else {
        return Ok(Err("the method is not a token".into()));
    };
    // Its answer would be a connection that no policy sees into.
    if method == Method::CONNECT {
        return Ok(Err(NO_CONNECT.into()));
    }
    let uri = match Uri::try_from(head.uri) {
        Ok(uri) if uri.scheme().is_some() && uri.authority().is_some() => uri,
        Ok(_) => return Ok(Err("the URI is not absolute".into())),
        Err(error) => return Ok(Err(format!("not a URI: {error}"))),
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(Ok(request))
}
