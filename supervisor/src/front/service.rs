//! From a client's request to its answer.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::{COOKIE, HOST, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;

use super::error_page::error_page;
use super::identity;
use super::patience::{Busy, Client};
use crate::body::Body;
use crate::dispatch::{Dispatcher, strip_request};
use crate::fields::strip_lookalikes;
use crate::worker::Tunnel;

const RAY: HeaderName = HeaderName::from_static("cloister-ray");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that only the front door may set, since Workers trust them.
static FORGEABLE: [&str; 6] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
];

/// Serves the requests of one connection.
#[derive(Clone)]
pub(super) struct Service(Arc<Inner>);

struct Inner {
    dispatcher: Arc<Dispatcher>,
    address: Arc<str>,
    forwarded_for: HeaderValue,
    client: Client,
    _place: OwnedSemaphorePermit,
}

impl Service {
    pub(super) fn new(
        dispatcher: Arc<Dispatcher>,
        address: IpAddr,
        client: Client,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let text = address.to_canonical().to_string();
        let forwarded_for =
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self(Arc::new(Inner { dispatcher, address: text.into(), forwarded_for, client, _place: place }))
    }

    pub(super) fn client(&self) -> Client {
        self.0.client.clone()
    }
}

impl Inner {
    /// Not `async`, so that the future is made of what it needs later, and not of the whole request.
    fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> {
        let busy = self.client.busy();
        let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let mut parts = Box::new(parts);
        let body = super::patience::awaited(body, self.client.patience());
        let accept = parts.headers.get(http::header::ACCEPT).cloned();
        let admitted = self.admit(&mut parts);
        async move {
            let ray = identity::ray();
            let response = match admitted {
                Ok(()) => {
                    let client = Arc::clone(&self.address);
                    let result = self.dispatcher.answer(Arc::clone(&ray), client, parts, body).await;
                    result.unwrap_or_else(|refusal| {
                        let mut asked = HeaderMap::new();
                        if let Some(accept) = accept {
                            asked.insert(http::header::ACCEPT, accept);
                        }
                        Box::new(error_page(refusal, &asked, &ray))
                    })
                }
                Err(status) => {
                    let mut response = Box::<Response<Body>>::default();
                    *response.status_mut() = status;
                    response
                }
            };
            Ok(self.finish(response, &ray, busy, upgrade))
        }
    }

    /// Makes a Worker's answer, or the platform's own, one for the client.
    fn finish(
        self: &Arc<Self>,
        mut response: Box<Response<Body>>,
        ray: &str,
        busy: Busy,
        upgrade: Option<OnUpgrade>,
    ) -> Response<Body> {
        if let Ok(value) = HeaderValue::from_str(ray) {
            response.headers_mut().insert(RAY, value);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(tunnel) = Tunnel::take(&mut response)
            && let Some(upgrade) = upgrade
        {
            // The tunnel keeps the connection's place.
            let own = Arc::clone(self);
            tokio::spawn(async move {
                // Its end, whatever the reason, is the end of both sides.
                let _ = Tunnel::upgrade(upgrade).join(tunnel).await;
                drop((busy, own));
            });
            return *response;
        }
        response.map(|body| super::patience::held(body, busy))
    }

    /// Makes a client's request one that Workers may see.
    ///
    /// # Errors
    /// The status of the answer that it gets from here.
    fn admit(&self, request: &mut Parts) -> Result<(), StatusCode> {
        // Exactly one host, said once: two names for one request are a way past routes.
        let bad = StatusCode::BAD_REQUEST;
        let mut uri = std::mem::take(&mut request.uri).into_parts();
        let mut hosts = request.headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(host.to_str().map_err(|_| bad)?),
            (None, _) => None,
            (Some(_), Some(_)) => return Err(bad),
        };
        if request.method == http::Method::CONNECT {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let authority = match (uri.authority.take(), host) {
            (Some(asked), Some(host)) if !asked.as_str().eq_ignore_ascii_case(host) => return Err(bad),
            (Some(asked), _) => asked,
            (None, Some(host)) => Authority::try_from(host).map_err(|_| bad)?,
            (None, None) if request.version <= Version::HTTP_10 => Authority::from_static("localhost"),
            (None, None) => return Err(bad),
        };
        if !is_host(authority.as_str()) {
            return Err(bad);
        }
        // Of no path is asked what the server itself can do (RFC 9110, 9.3.7), of no Worker then either.
        match uri.path_and_query.as_ref().map(PathAndQuery::as_str) {
            Some("*") if request.method == http::Method::OPTIONS => return Err(StatusCode::NO_CONTENT),
            Some("*") => return Err(bad),
            _ => {}
        }
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(authority);
        uri.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
        request.uri = Uri::from_parts(uri).map_err(|_| bad)?;
        let headers = &mut request.headers;
        // Room for all that is added here, made once.
        headers.reserve(4);
        strip_request(&request.method, request.version, headers);
        // One walk over the names, as few requests have any of these.
        if headers.keys().any(|name| FORGEABLE.contains(&name.as_str())) {
            for name in FORGEABLE {
                headers.remove(name);
            }
        }
        strip_lookalikes(headers, |name| FORGEABLE.contains(&name));
        // Few requests say anything twice.
        if headers.len() > headers.keys_len() {
            join_cookies(headers)?;
        }
        headers.insert(FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        identity::trace(headers);
        // There was none, or `Connection` listed it.
        if !request.headers.contains_key(HOST) {
            let host = request.uri.authority().map_or("", Authority::as_str);
            let host = HeaderValue::from_str(host).map_err(|_| bad)?;
            request.headers.insert(HOST, host);
        }
        Ok(())
    }
}

/// Whether this is a host and perhaps a port, and nothing else: `user@` is a way past routes, and a port that is
/// none makes a URI that Workers can't read.
fn is_host(authority: &str) -> bool {
    let name = match authority.strip_prefix('[') {
        Some(_) => authority.find(']').map_or(0, |at| at + 1),
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, port) = authority.split_at_checked(name).unwrap_or_default();
    let port = match port.strip_prefix(':') {
        None | Some("") => port.len() < 2,
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
    };
    port && !name.is_empty() && !name.contains('@')
}

/// h2 sends the crumbs of a cookie one by one; everybody else knows one field alone (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) -> Result<(), StatusCode> {
    let cookies: Vec<_> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1 {
        let whole = cookies.join(&b"; "[..]);
        let whole = HeaderValue::from_bytes(&whole).map_err(|_| StatusCode::BAD_REQUEST)?;
        headers.insert(COOKIE, whole);
    }
    Ok(())
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        Box::pin(Arc::clone(&self.0).answer(request))
    }
}
