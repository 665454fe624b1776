//! The proxy port of a Worker: plain HTTP, CONNECT, and reserved names for its bindings.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloister_policies::egress::{Host, Target};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::fetch::{RESERVED, is_reserved};
use super::headers::{MARK, strip_hop_by_hop, wants_websocket};
use super::{BindingTarget, Bindings, Caller, Egress, EgressError};
use crate::body::Body;
use crate::fields::strip_own;
use crate::worker::Tunnel;

/// Longest head of a request, bytes.
const HEAD_BYTES: usize = 64 << 10;
/// Most header fields of a request.
const HEAD_FIELDS: usize = 128;
/// Longest that a request's head may take, and a connection may wait for the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

impl Egress {
    /// Serves one connection accepted on a Worker's proxy port until it ends. `caller` is asked
    /// once for each request, `bindings` are what reserved names stand for.
    ///
    /// What the filter refuses or cannot do is answered with 4xx or 502, a JSON reason that names
    /// the rule, and the header `cloister-egress`, which no other answer carries.
    pub async fn serve_proxy<I, F, B>(self: Arc<Self>, io: I, caller: F, bindings: B)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn() -> Caller + Send + Sync + 'static,
        B: Bindings + 'static,
    {
        let payer = caller().payer();
        let Some(_slot) = self.connections.take(payer.clone()) else {
            let limit = self.connections.each();
            if let Some(left_out) = self.journal.takes_refusal(&payer, Instant::now()) {
                let worker = &payer.worker;
                let what = "too many connections to its proxy port, one is closed";
                tracing::warn!(target: "egress", %worker, limit, left_out, "{what}");
            }
            return;
        };
        let client = Arc::new((caller, bindings));
        let service = service_fn(move |req: Request<Incoming>| {
            let (egress, client) = (Arc::clone(&self), Arc::clone(&client));
            async move {
                let (caller, bindings) = &*client;
                Ok::<_, Infallible>(egress.proxied(&caller(), bindings, req).await)
            }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(HEAD_FIELDS)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(2 * HEAD_BYTES)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        if let Err(error) = served.await {
            tracing::debug!(target: "egress", %error, "a connection to a proxy port broke off");
        }
    }

    /// Lets a Worker whose requests come to nothing wait, when there are many: they cost others' time, and it
    /// nothing. `judged` ones are counted already.
    pub(crate) async fn pace(&self, caller: &Caller, judged: bool) {
        let (payer, now) = (caller.payer(), Instant::now());
        if !judged {
            let _ = self.journal.takes_refusal(&payer, now);
        }
        if let Some(pause) = self.journal.pause(&payer, now) {
            tokio::time::sleep(pause).await;
        }
    }

    async fn proxied(
        self: Arc<Self>,
        caller: &Caller,
        bindings: &impl Bindings,
        req: Request<Incoming>,
    ) -> Response<Body> {
        let tunnel = req.method() == Method::CONNECT;
        let answered = if tunnel {
            Arc::clone(&self).connect(caller, req).await
        } else {
            self.forwarded(caller, bindings, req).await
        };
        let error = match answered {
            Ok(response) => return response,
            Err(error) => error,
        };
        let judged = !matches!(
            error,
            EgressError::Invalid(_) | EgressError::Outbound { .. } | EgressError::Subrequests(_)
        );
        self.pace(caller, judged).await;
        let mut response = refusal(&error);
        if tunnel {
            // Simple clients read to the end of the connection when they get no tunnel.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn forwarded(
        &self,
        caller: &Caller,
        bindings: &impl Bindings,
        mut req: Request<Incoming>,
    ) -> Result<Response<Body>, EgressError> {
        if req.uri().scheme().is_none() {
            let what = "this is a proxy, it needs an absolute URI (`GET http://host/path`) or CONNECT";
            return Err(EgressError::Invalid(what.into()));
        }
        let websocket = wants_websocket(req.method(), req.headers());
        let client = websocket.then(|| hyper::upgrade::on(&mut req));
        let req = req.map(Body::from);
        let mut response = match Target::from_uri(req.uri()) {
            Ok(target) if is_reserved(&target.host) => bound(caller, bindings, &target, req).await?,
            _ => self.fetch(caller, req).await?,
        };
        match client {
            Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let tunnel = Tunnel::take(&mut response).ok_or_else(|| EgressError::Network {
                    host: RESERVED.into(),
                    reason: "it switched protocols without a connection".into(),
                })?;
                tokio::spawn(async move {
                    // Ends as WebSockets end: one side goes away. What there is to say of it is in the
                    // decision that the tunnel holds.
                    let _ = Tunnel::upgrade(client).join(tunnel).await;
                });
            }
            _ => strip_hop_by_hop(response.headers_mut()),
        }
        Ok(response)
    }
}

/// Calls the binding that a reserved name stands for.
async fn bound(
    caller: &Caller,
    bindings: &impl Bindings,
    target: &Target,
    mut req: Request<Body>,
) -> Result<Response<Body>, EgressError> {
    let binding =
        binding(&target.host).filter(|_| target.port == target.scheme.default_port()).ok_or_else(|| {
            let what = format!("{} is not http://<binding>.{RESERVED}/", target.authority());
            EgressError::Invalid(format!("{what} or http://<worker>.<binding>.{RESERVED}/"))
        })?;
    req.extensions_mut().clear();
    let answered = bindings.call(caller, binding, req).await;
    let failed = |failure| EgressError::Outbound { worker: target.host.to_string(), failure };
    let mut response = answered.map_err(failed)?;
    strip_own(response.headers_mut());
    Ok(response)
}

/// What a reserved name stands for.
fn binding(host: &Host) -> Option<BindingTarget> {
    let Host::Name(name) = host else { return None };
    let labels: Vec<&str> = name.split('.').collect();
    match labels.as_slice() {
        [binding, RESERVED] => Some(BindingTarget::Service { binding: (*binding).to_owned() }),
        [worker, binding, RESERVED] => {
            Some(BindingTarget::Dispatch { binding: (*binding).to_owned(), worker: (*worker).to_owned() })
        }
        _ => None,
    }
}

fn refusal(error: &EgressError) -> Response<Body> {
    let body = serde_json::json!({
        "error": { "kind": error.kind(), "rule": error.rule(), "message": error.to_string() }
    });
    let mut response = Response::new(Body::full(body.to_string()));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(MARK, HeaderValue::from_static(error.kind()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names() {
        let of = |text| binding(&Host::parse(text).unwrap());
        assert_eq!(of("AUTH.cloister."), Some(BindingTarget::Service { binding: "auth".into() }));
        let dispatch = BindingTarget::Dispatch { binding: "dispatcher".into(), worker: "shop-7".into() };
        assert_eq!(of("shop-7.Dispatcher.cloister"), Some(dispatch));
        assert_eq!(of("cloister"), None);
        assert_eq!(of("a.b.c.cloister"), None);
        assert!(is_reserved(&Host::parse("a.b.c.cloister").unwrap()));
        assert!(is_reserved(&Host::parse("cloister").unwrap()));
        assert!(!is_reserved(&Host::parse("cloister.example").unwrap()));
    }
}
