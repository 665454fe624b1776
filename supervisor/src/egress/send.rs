//! Sending a judged request to an address that was judged.

use std::net::IpAddr;
use std::sync::Arc;
use std::thread;

use cloister_policies::address;
use cloister_policies::egress::{Host, Policy, Target, Verdict};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use tokio::time::timeout;

use super::idle::Key;
use super::journal::Entry;
use super::metered::Return;
use super::{Caller, Egress, EgressError};
use crate::body::Body;
use crate::client::{self, describe};

/// Most header fields of a response.
const HEAD_FIELDS: usize = 128;

impl Egress {
    /// The addresses of `host` that `verdict` lets be dialled; at least one.
    ///
    /// # Errors
    /// [`EgressError::Resolve`] when it has none, [`EgressError::Address`] when it has no permitted one.
    pub(super) async fn addresses(
        &self,
        host: &Host,
        verdict: &Verdict<'_>,
    ) -> Result<Vec<IpAddr>, EgressError> {
        let found = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self
                .resolver
                .resolve(name)
                .await
                .map_err(|reason| EgressError::Resolve { host: name.clone(), reason })?,
        };
        let own = self.own.list();
        let mut refused = None;
        let mut permitted = Vec::with_capacity(found.len());
        for candidate in found {
            // A network that is named in a rule counts only for requests that the rule allows.
            match address::permit(candidate, &own, verdict.networks()) {
                Ok(()) => permitted.push(candidate),
                Err(error) => refused = refused.or(Some((candidate, error))),
            }
        }
        match refused {
            _ if !permitted.is_empty() => Ok(permitted),
            Some((address, error)) => Err(EgressError::Address {
                rule: verdict.rule_name().to_owned(),
                host: host.to_string(),
                address,
                reason: format!("{error}; only a rule that names its network in `networks` permits it"),
            }),
            None => Err(EgressError::Resolve { host: host.to_string(), reason: "it has no address".into() }),
        }
    }

    /// Sends `req` and waits for the head of the response.
    pub(super) async fn send(
        &self,
        caller: &Caller,
        target: &Target,
        verdict: &Verdict<'_>,
        req: Request<Body>,
        entry: &mut Entry,
    ) -> Result<(Response<Body>, Option<Return>), EgressError> {
        let addresses = self.addresses(&target.host, verdict).await?;
        let failed = |reason: String| EgressError::Network { host: target.authority(), reason };
        let key = |address| Key {
            worker: caller.worker.clone(),
            version: Arc::clone(&caller.version),
            scheme: target.scheme,
            host: target.host.clone(),
            port: target.port,
            address,
            thread: thread::current().id(),
        };
        let mut req = req;
        chunk(&mut req);
        let waiting = addresses.iter().find_map(|address| {
            let key = key(*address);
            self.idle.take(&key).map(|sender| (sender, key))
        });
        if let Some((mut sender, key)) = waiting {
            entry.address(key.address);
            match timeout(self.response_timeout, sender.try_send_request(req)).await {
                Ok(Ok(response)) => {
                    return Ok(received(response, Return { idle: self.idle.clone(), key, sender }));
                }
                Err(_) => return Err(failed("no response in time".into())),
                // The server closed it while it waited; nothing was sent, so it can be sent again.
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) => req = unsent,
                    None => return Err(failed(describe(&error.into_error()))),
                },
            }
        }
        let connected = self.dialer.connect(target.scheme, &target.host, &addresses, target.port).await;
        let (stream, address) = connected.map_err(failed)?;
        entry.address(address);
        let mut sender =
            client::handshake(stream, HEAD_FIELDS).await.map_err(|error| failed(describe(&error)))?;
        match timeout(self.response_timeout, sender.try_send_request(req)).await {
            Ok(Ok(response)) => {
                Ok(received(response, Return { idle: self.idle.clone(), key: key(address), sender }))
            }
            Ok(Err(error)) => Err(failed(describe(&error.into_error()))),
            Err(_) => Err(failed("no response in time".into())),
        }
    }
}

/// Says how a body of unknown length is sent: hyper leaves out that of a GET or a HEAD otherwise.
fn chunk(req: &mut Request<Body>) {
    let unknown = !req.body().is_end_stream() && req.body().size_hint().exact().is_none();
    if unknown && !req.headers().contains_key(header::CONTENT_LENGTH) {
        req.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// What a server answered, in this version whatever it speaks: the Worker's connection is another.
fn received(mut response: Response<hyper::body::Incoming>, back: Return) -> (Response<Body>, Option<Return>) {
    *response.version_mut() = http::Version::HTTP_11;
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    (response.map(Body::from), (!switched).then_some(back))
}

/// Makes `Content-Length` what the body says: a length that its sender made up would let a part of
/// one request be read as another.
fn frame(req: &mut Request<Body>) -> Result<(), EgressError> {
    let bodiless = req.body().is_end_stream();
    if bodiless || req.body().size_hint().exact().is_some() {
        req.headers_mut().remove(header::CONTENT_LENGTH);
        if bodiless && matches!(*req.method(), Method::POST | Method::PUT | Method::PATCH) {
            req.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return Ok(());
    }
    let mut lengths = req.headers().get_all(header::CONTENT_LENGTH).iter();
    let valid = match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(one), None) => {
            one.as_bytes().iter().all(u8::is_ascii_digit)
                && one.to_str().is_ok_and(|text| text.parse::<u64>().is_ok())
        }
        (Some(_), Some(_)) => false,
    };
    if valid { Ok(()) } else { Err(EgressError::Invalid("its Content-Length is malformed".into())) }
}

/// Puts `Host` and the path into the form of HTTP/1.1; `path` overrides the one asked for.
pub(super) fn address_to(
    req: &mut Request<Body>,
    target: &Target,
    path: Option<&str>,
) -> Result<(), EgressError> {
    frame(req)?;
    let invalid = |what: &str| EgressError::Invalid(format!("its {what} cannot be sent"));
    let uri = match (path, req.uri().path_and_query()) {
        (None, Some(own)) if own.as_str().starts_with('/') => Uri::from(own.clone()),
        (path, own) => {
            let path = path.or(own.map(PathAndQuery::path)).filter(|path| !path.is_empty()).unwrap_or("/");
            let query = req.uri().query().map_or_else(String::new, |query| format!("?{query}"));
            Uri::try_from(format!("{path}{query}")).map_err(|_| invalid("path"))?
        }
    };
    let host = HeaderValue::try_from(target.authority()).map_err(|_| invalid("host"))?;
    *req.uri_mut() = uri;
    *req.version_mut() = http::Version::HTTP_11;
    req.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// The same for a request that goes to an outbound Worker: an absolute URI.
pub(super) fn address_absolutely(
    req: &mut Request<Body>,
    target: &Target,
    policy: &Policy,
) -> Result<(), EgressError> {
    let path = policy.path_to_send(&target.asked(req.method())).map(str::to_owned);
    address_to(req, target, path.as_deref())?;
    let rest = req.uri().path_and_query().map_or("/", |rest| rest.as_str());
    let uri = format!("{}://{}{rest}", target.scheme, target.authority());
    *req.uri_mut() = Uri::try_from(uri).map_err(|_| EgressError::Invalid("its URI cannot be sent".into()))?;
    Ok(())
}
