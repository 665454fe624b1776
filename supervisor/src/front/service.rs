//! From a client's request to its answer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::header::{FORWARDED, HOST, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::error_page::error_page;
use super::identity;
use super::patience::Client;
use crate::body::Body;
use crate::dispatch::{Dispatcher, strip_lookalikes, strip_request};
use crate::worker::Tunnel;

const RAY: HeaderName = HeaderName::from_static("cloister-ray");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that only the front door may set, since Workers trust them.
const FORGEABLE: [HeaderName; 5] = [
    FORWARDED_FOR,
    FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

/// Serves the requests of one connection.
#[derive(Clone)]
pub(super) struct Service {
    dispatcher: Arc<Dispatcher>,
    address: Arc<str>,
    forwarded_for: HeaderValue,
    client: Client,
}

impl Service {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, address: IpAddr, client: Client) -> Self {
        let text = address.to_canonical().to_string();
        let forwarded_for =
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self { dispatcher, address: text.into(), forwarded_for, client }
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    async fn answer(self, mut request: Request<Incoming>) -> Response<Body> {
        let busy = self.client.busy();
        let ray = identity::ray();
        let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let request = request.map(Body::from);
        let accept = request.headers().get(http::header::ACCEPT).cloned();
        let mut response = match self.admit(request) {
            Ok(request) => {
                let result =
                    self.dispatcher.answer(Arc::clone(&ray), Arc::clone(&self.address), request).await;
                result.unwrap_or_else(|refusal| {
                    let mut asked = http::HeaderMap::new();
                    if let Some(accept) = accept {
                        asked.insert(http::header::ACCEPT, accept);
                    }
                    error_page(refusal, &asked, &ray)
                })
            }
            Err(status) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                response
            }
        };
        if let Ok(value) = HeaderValue::from_str(&ray) {
            response.headers_mut().insert(RAY, value);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let tunnel = Tunnel::take(&mut response);
            if let (Some(tunnel), Some(upgrade)) = (tunnel, upgrade) {
                tokio::spawn(async move {
                    // Its end, whatever the reason, is the end of both sides.
                    let _ = Tunnel::upgrade(upgrade).join(tunnel).await;
                    drop(busy);
                });
                return response;
            }
        }
        response.map(|body| super::patience::held(body, busy))
    }

    /// Makes a client's request one that Workers may see.
    fn admit(&self, mut request: Request<Body>) -> Result<Request<Body>, StatusCode> {
        // Exactly one host, said once: two names for one request are a way past routes.
        let headers = request.headers();
        let mut hosts = headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => Some(host.to_str().map_err(|_| StatusCode::BAD_REQUEST)?.to_owned()),
            (None, _) => None,
            (Some(_), Some(_)) => return Err(StatusCode::BAD_REQUEST),
        };
        if request.method() == http::Method::CONNECT {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let asked = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let name = match (asked, host) {
            (Some(asked), Some(host)) if !asked.eq_ignore_ascii_case(&host) => {
                return Err(StatusCode::BAD_REQUEST);
            }
            (Some(name), _) | (None, Some(name)) => name,
            (None, None) if request.version() <= Version::HTTP_10 => "localhost".to_owned(),
            (None, None) => return Err(StatusCode::BAD_REQUEST),
        };
        let authority = Authority::try_from(name.as_str()).map_err(|_| StatusCode::BAD_REQUEST)?;
        if authority.as_str().contains('@') {
            return Err(StatusCode::BAD_REQUEST);
        }
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(authority);
        let root = || http::uri::PathAndQuery::from_static("/");
        uri.path_and_query = Some(request.uri().path_and_query().cloned().unwrap_or_else(root));
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_| StatusCode::BAD_REQUEST)?;
        let headers = request.headers_mut();
        strip_request(headers);
        for name in FORGEABLE {
            headers.remove(name);
        }
        headers.remove(FORWARDED);
        strip_lookalikes(headers, |name| FORGEABLE.iter().any(|forgeable| forgeable == name));
        if !headers.contains_key(HOST) {
            let host = HeaderValue::from_str(&name).map_err(|_| StatusCode::BAD_REQUEST)?;
            headers.insert(HOST, host);
        }
        headers.insert(FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
        identity::trace(headers);
        Ok(request)
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}
