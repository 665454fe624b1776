//! From a message to the request that a handler gets.

use std::sync::Arc;

use bytes::Bytes;
use cloister_ipc::borrowed::RequestHead;
use cloister_ipc::head;
use cloister_ipc::worker::{BodyRef, HostBody};
use http::{Method, Request, Uri, header};

use crate::body::{Body, Held};
use crate::dispatch::Placed;
use crate::error::BoxError;
use crate::invocation::Invocation;
use crate::upgrade::Asked;

/// Builds the request of `invocation`, sharing the memory of its `message`.
pub(crate) fn request(
    invocation: &Arc<Invocation>,
    message: &Bytes,
    head: &RequestHead<'_>,
    body: HostBody,
    inline: Bytes,
) -> Result<Request<Body>, BoxError> {
    let body = match body {
        HostBody::Empty => Body::empty(),
        HostBody::Inline => Body::full(inline),
        HostBody::Held { length } => {
            Body::held(Held::new(invocation.clone(), BodyRef::Request(invocation.id), length))
        }
        HostBody::Tunnel => return Err("a request came with a tunnel for a body".into()),
    };
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(head.method.as_bytes())?;
    *request.uri_mut() = Uri::from_maybe_shared(message.slice_ref(head.uri.as_bytes()))?;
    *request.headers_mut() = head::decode(message.slice_ref(head.headers))?;
    if request.headers().contains_key(header::UPGRADE) {
        request.extensions_mut().insert(Asked(Placed::new(invocation.clone())));
    }
    Ok(request)
}
