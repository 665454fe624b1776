//! Outgoing requests, to the outside and to other Workers.

use std::future::{Future, poll_fn};
use std::sync::Arc;

use bytes::Bytes;
use cloister_ipc::head as block;
use cloister_ipc::limits::TARGET_BYTES;
use cloister_ipc::worker::{BodyRef, FetchId, FromWorker, HostBody, RequestHead, Target, WorkerBody};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as HttpBody;

use crate::body::{Body, Held, Outgoing, outgoing, pump};
use crate::error::{BoxError, FetchError};
use crate::invocation::{HoldKind, Invocation, current};
use crate::link::Fetched;
use crate::task::Spawned;

/// Makes an outgoing request through the platform's egress filter, on behalf of the request whose
/// handler calls it. The URI must be absolute, `http` or `https`.
///
/// It must be called (not necessarily awaited) in a handler; elsewhere, as in a spawned task, it
/// fails with [`FetchError::NoRequest`]: use [`Context::fetch`](crate::Context::fetch) there.
pub fn fetch<B>(
    request: Request<B>,
) -> impl Future<Output = Result<Response<Body>, FetchError>> + Send + use<B>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    perform(current(), Target::Egress, request)
}

/// Wire form of a request's head.
pub(crate) fn head(parts: &Parts) -> Result<RequestHead, FetchError> {
    if parts.method == Method::CONNECT {
        return Err(FetchError::Invalid(
            "CONNECT asks for a tunnel, not for an answer: use another method".into(),
        ));
    }
    let uri = if parts.uri.scheme().is_some() && parts.uri.authority().is_some() {
        parts.uri.to_string()
    } else {
        let host = parts.headers.get(header::HOST).map(HeaderValue::to_str);
        let Some(Ok(host)) = host else {
            return Err(FetchError::Invalid(format!("{} is not an absolute URI", parts.uri)));
        };
        format!("http://{host}{}", parts.uri)
    };
    if uri.len() > TARGET_BYTES {
        let text = format!("a URI of {} bytes, at most {TARGET_BYTES} are sent", uri.len());
        return Err(FetchError::Invalid(text));
    }
    let headers = block::encode(&parts.headers).map_err(|error| FetchError::Invalid(error.to_string()))?;
    Ok(RequestHead { method: parts.method.as_str().to_owned(), uri, headers })
}

/// Tells the platform when nobody waits for a fetch any more.
struct Pending<'a> {
    invocation: &'a Invocation,
    fetch: FetchId,
    sent: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let unanswered = self.invocation.link.forget_fetch(self.fetch);
        if unanswered && self.sent {
            self.invocation.link.tell(&FromWorker::CancelFetch { fetch: self.fetch });
        }
    }
}

/// Asks `target` on behalf of `invocation`.
pub(crate) async fn perform<B>(
    invocation: Option<Arc<Invocation>>,
    target: Target,
    request: Request<B>,
) -> Result<Response<Body>, FetchError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let invocation = invocation.ok_or(FetchError::NoRequest)?;
    let (parts, body) = request.into_parts();
    let head = head(&parts)?;
    let link = &invocation.link;
    let fetch = poll_fn(|cx| link.poll_fetch(invocation.id, cx)).await.ok_or(FetchError::Over)?;
    let mut pending = Pending { invocation: &invocation, fetch, sent: false };
    if invocation.is_over() {
        return Err(FetchError::Over);
    }
    send(&invocation, fetch, target, head, body)?;
    pending.sent = true;
    let fetched = poll_fn(|cx| link.poll_fetched(fetch, cx)).await?;
    response(&invocation, fetch, fetched)
}

/// Sends the request; a streamed body is written by work of its own.
fn send<B>(
    invocation: &Arc<Invocation>,
    fetch: FetchId,
    target: Target,
    head: RequestHead,
    body: B,
) -> Result<(), FetchError>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let request = invocation.id;
    let mut inline = Bytes::new();
    let mut stream = None;
    let body = match outgoing(body, invocation).map_err(FetchError::Body)? {
        Outgoing::Empty => WorkerBody::Empty,
        Outgoing::Inline(bytes) => {
            inline = bytes;
            WorkerBody::Inline
        }
        Outgoing::Forward(held) => WorkerBody::Forward(held.forward()),
        Outgoing::Stream(source) => {
            let length = source.length;
            stream = Some(source);
            WorkerBody::Stream { length }
        }
    };
    let link = &invocation.link;
    let name = BodyRef::FetchRequest(fetch);
    if stream.is_some() {
        link.expect(name);
    }
    let message = FromWorker::Fetch { fetch, request, target, head, body };
    if let Err(error) = link.send(&message, &inline) {
        link.forget(name);
        return Err(FetchError::Invalid(error.to_string()));
    }
    if let Some(source) = stream {
        link.spawn(Spawned {
            work: Box::pin(pump(invocation.clone(), name, source)),
            hold: invocation.hold(HoldKind::Work),
            invocation: invocation.clone(),
        });
    }
    Ok(())
}

fn response(
    invocation: &Arc<Invocation>,
    fetch: FetchId,
    fetched: Fetched,
) -> Result<Response<Body>, FetchError> {
    let held = |name, length| Body::held(Held::new(invocation.clone(), name, length));
    // First, so that what is held is let go of when the head makes no sense.
    let body = match fetched.body {
        HostBody::Empty => Body::empty(),
        HostBody::Inline => Body::full(fetched.inline),
        HostBody::Held { length } => held(BodyRef::FetchResponse(fetch), length),
        HostBody::Tunnel => held(BodyRef::FetchTunnel(fetch), None),
    };
    let invalid = |error: BoxError| FetchError::Network(format!("bad response: {error}"));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(fetched.status).map_err(|error| invalid(error.into()))?;
    *response.headers_mut() = block::decode(fetched.headers).map_err(|error| invalid(error.into()))?;
    Ok(response)
}
