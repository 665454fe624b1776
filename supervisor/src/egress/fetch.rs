//! One outgoing request, from question to response.

use std::sync::Arc;

use cloister_ipc::worker::OutboundContext;
use cloister_policies::egress::{Decision, Host, Rule, Target, Verdict};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::caller::Payer;
use super::folder::Loaded;
use super::headers::{prepare, strip_hop_by_hop, wants_websocket};
use super::journal::Entry;
use super::metered::Metered;
use super::send::{address_absolutely, address_to};
use super::wire::Wire;
use super::{Caller, Egress, EgressError};
use crate::body::Body;
use crate::fields::strip_own;
use crate::registry::WorkerId;
use crate::slots::Slot;
use crate::worker::{NO_CONNECT, Tunnel};

/// Host names that never leave the machine.
pub(super) const RESERVED: &str = "cloister";

/// Where an allowed request goes.
enum Way {
    Origin,
    Outbound { worker: WorkerId, params: Vec<(String, String)> },
}

impl Egress {
    /// Sends `req` (absolute `http` or `https` URI) for `caller`, if its policy lets it. Takes one
    /// of the caller's subrequests, also when it is refused.
    ///
    /// Redirects are not followed: the Worker gets them, and what it asks next is judged anew. An
    /// HTTP/1.1 upgrade to a WebSocket is let through; its 101 response carries a
    /// [`Tunnel`](crate::worker::Tunnel).
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn fetch(&self, caller: &Caller, req: Request<Body>) -> Result<Response<Body>, EgressError> {
        let target = Target::from_uri(req.uri());
        let (host, port) = match &target {
            Ok(target) => (target.host.to_string(), target.port),
            Err(_) => (req.uri().host().unwrap_or_default().to_owned(), req.uri().port_u16().unwrap_or(0)),
        };
        let mut entry = Entry::new(&self.journal, caller, req.method().as_str(), &host, port);
        match self.fetch_judged(caller, target, req, &mut entry).await {
            Ok((response, limit, _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                entry.status(response.status());
                self.switch(response, limit, entry).await
            }
            Ok((response, limit, back)) => {
                entry.status(response.status());
                let idle = self.idle_timeout;
                Ok(response.map(|body| Body::boxed(Metered::new(body, entry, limit, back, idle))))
            }
            Err(error) => Err(entry.failed(error)),
        }
    }

    async fn fetch_judged(
        &self,
        caller: &Caller,
        target: Result<Target, cloister_policies::egress::TargetError>,
        mut req: Request<Body>,
        entry: &mut Entry,
    ) -> Result<(Response<Body>, Option<u64>, Option<super::metered::Return>), EgressError> {
        caller.subrequests.take()?;
        entry.hold(self.slot(caller)?);
        // Judged as a request it would be answered by a tunnel; those have rules of their own (`tunnel`).
        if req.method() == Method::CONNECT {
            return Err(EgressError::Invalid(NO_CONNECT.into()));
        }
        let target = target.map_err(|error| EgressError::Invalid(error.to_string()))?;
        entry.path(target.path.as_str());
        if is_reserved(&target.host) {
            return Err(EgressError::Invalid(format!("{} is a reserved name", target.host)));
        }
        let loaded = self.folder.judge_of(&caller.worker);
        let asked = target.asked(req.method());
        let verdict = loaded.policy.judge(&asked);
        entry.verdict(&verdict);
        let way = self.way(caller, &loaded, &verdict)?;
        let rule = verdict.rule;
        let limit = rule.and_then(|rule| rule.response_bytes);

        let websocket = wants_websocket(req.method(), req.headers());
        if websocket && limit.is_some() && matches!(way, Way::Outbound { .. }) {
            let reason = "a WebSocket of an outbound Worker cannot be held to the rule's `response_bytes`";
            return Err(denied(&verdict, reason));
        }
        let secrets = self.secrets.get().map(|secrets| &**secrets);
        let prepared = prepare(req.headers_mut(), websocket, rule, &caller.worker, secrets);
        prepared.map_err(|error| denied(&verdict, error.to_string()))?;
        req.extensions_mut().clear();

        let (mut response, back) = match way {
            Way::Outbound { worker, params } => {
                entry.outbound();
                address_absolutely(&mut req, &target, &loaded.policy)?;
                (self.invoke(caller, &worker, params, req).await?, None)
            }
            Way::Origin => {
                let path = loaded.policy.path_to_send(&target.asked(req.method())).map(str::to_owned);
                address_to(&mut req, &target, path.as_deref())?;
                self.send(caller, &target, &verdict, req, entry).await?
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !websocket {
                let reason = "it switched protocols unasked".into();
                return Err(EgressError::Network { host: target.authority(), reason });
            }
        } else {
            strip_hop_by_hop(response.headers_mut());
        }
        // A Worker that passes the answer on would say in its own name what the server put there: who is to answer
        // instead, above all. Workers' own answers have none of them any more.
        strip_own(response.headers_mut());
        within(&response, rule)?;
        Ok((response, limit, back))
    }

    /// Makes the tunnel of a 101 response: it holds `entry`, and so the caller's share, to its end.
    async fn switch(
        &self,
        mut response: Response<Body>,
        limit: Option<u64>,
        mut entry: Entry,
    ) -> Result<Response<Body>, EgressError> {
        let broken = |reason: String| EgressError::Network { host: "the server".into(), reason };
        let tunnel = match response.extensions_mut().remove::<OnUpgrade>() {
            Some(upgrade) => match upgrade.await {
                Ok(upgraded) => {
                    let stream = TokioIo::new(upgraded);
                    Tunnel::new(Wire::new(stream, entry, limit, self.idle_timeout))
                }
                Err(error) => return Err(entry.failed(broken(error.to_string()))),
            },
            // An outbound Worker's.
            None => match Tunnel::take(&mut response) {
                Some(tunnel) => tunnel.with(entry),
                None => return Err(entry.failed(broken("it switched protocols without a connection".into()))),
            },
        };
        let mut switched = response.map(|_| Body::empty());
        switched.extensions_mut().insert(tunnel);
        Ok(switched)
    }

    /// What is to be done with a request of this verdict.
    fn way(&self, caller: &Caller, loaded: &Loaded, verdict: &Verdict<'_>) -> Result<Way, EgressError> {
        let way = match (verdict.decision, &caller.outbound) {
            (Decision::Deny, _) => {
                let reason = verdict.refusal.map_or_else(String::new, |refusal| refusal.to_string());
                return Err(denied(verdict, reason));
            }
            (Decision::Outbound(_), _) if caller.on_behalf_of.is_some() => {
                return Err(denied(verdict, "an outbound Worker's own requests have no outbound Worker"));
            }
            (Decision::Allow, None) => Way::Origin,
            (Decision::Allow | Decision::Outbound(_), Some(call)) => {
                Way::Outbound { worker: call.worker.clone(), params: call.params.clone() }
            }
            (Decision::Outbound(Some(name)), None) => Way::Outbound {
                worker: WorkerId { namespace: None, name: Arc::clone(name) },
                params: Vec::new(),
            },
            (Decision::Outbound(None), None) => {
                let reason = "neither the dispatch call nor the rule names an outbound Worker";
                return Err(denied(verdict, reason));
            }
        };
        self.within_rate(caller, loaded, verdict)?;
        Ok(way)
    }

    /// A request more for the caller.
    pub(super) fn slot(&self, caller: &Caller) -> Result<Slot<Payer>, EgressError> {
        let full = || EgressError::TooMany { limit: self.requests.each() };
        self.requests.take(caller.payer()).ok_or_else(full)
    }

    /// Holds the caller to the rule's `requests_per_second`.
    pub(super) fn within_rate(
        &self,
        caller: &Caller,
        loaded: &Loaded,
        verdict: &Verdict<'_>,
    ) -> Result<(), EgressError> {
        match verdict.rule {
            Some(rule) if !verdict.reported && !self.rates.allow(|| caller.payer(), loaded, rule) => {
                let per_second = rule.requests_per_second.map_or(0, std::num::NonZeroU32::get);
                Err(EgressError::RateLimited { rule: rule.name.to_string(), per_second })
            }
            _ => Ok(()),
        }
    }

    async fn invoke(
        &self,
        caller: &Caller,
        worker: &WorkerId,
        params: Vec<(String, String)>,
        req: Request<Body>,
    ) -> Result<Response<Body>, EgressError> {
        let failed = |failure| EgressError::Outbound { worker: worker.to_string(), failure };
        let invoker = self.outbound.get().ok_or_else(|| failed(crate::outcome::Failure::Internal))?;
        let context = OutboundContext {
            namespace: caller.worker.namespace.as_deref().unwrap_or_default().to_owned(),
            worker: caller.worker.name.to_string(),
            params,
        };
        invoker.invoke(worker, context, caller, req).await.map_err(failed)
    }
}

/// Whether a host is one of the reserved names.
pub(super) fn is_reserved(host: &Host) -> bool {
    match host {
        Host::Name(name) => name.rsplit('.').next() == Some(RESERVED),
        Host::Address(_) => false,
    }
}

pub(super) fn denied(verdict: &Verdict<'_>, reason: impl Into<String>) -> EgressError {
    EgressError::Denied { rule: verdict.rule_name().to_owned(), reason: reason.into() }
}

/// Refuses a response that says by itself that it is too long.
fn within(response: &Response<Body>, rule: Option<&Rule>) -> Result<(), EgressError> {
    let Some((rule, limit)) = rule.and_then(|rule| Some((rule, rule.response_bytes?))) else { return Ok(()) };
    let announced = response.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let bytes = response.body().size_hint().exact().or(announced).unwrap_or(0);
    // The answer to a HEAD announces a body that does not come.
    if bytes > limit && !response.body().is_end_stream() {
        return Err(EgressError::ResponseTooLarge { rule: rule.name.to_string(), bytes, limit });
    }
    Ok(())
}
