//! A call, from the lookup of the Worker to the end of its answer.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body as _;

use super::body::{Accounted, Limited};
use super::explain::explain;
use super::gather::{self, Missing};
use super::headers::{asks_to_switch, strip_request, strip_response};
use super::{DEPTH, Dispatcher, Hop, Invocation, Refusal, http_handoff};
use crate::body::{Body, BodyError};
use crate::egress::Budget;
use crate::outcome::{Failure, Outcome};
use crate::pool::Lease;
use crate::registry::{Contract, Deployed, WorkerId};
use crate::telemetry::{self, Detail, Event};
use crate::worker::{Answer, CallError, Handoff, NO_CONNECT, Tunnel};

/// Processes a request is offered to, when one after another is gone before it got a byte.
const TRIES: u32 = 3;

/// What a Worker did with a request.
enum Done {
    Answered(Box<Response<Body>>),
    HandedOn(Box<HandedOn>),
}

/// A request that another Worker shall answer.
struct HandedOn {
    hop: Hop,
    worker: WorkerId,
    /// `None` when it stays as it is.
    parts: Option<Parts>,
    body: Body,
}

impl Dispatcher {
    /// Has `worker` answer `request`, and whoever it hands the request on to.
    ///
    /// # Errors
    /// See [`Refusal`]; the reason is in the Worker's records.
    pub fn serve(
        &self,
        hop: Hop,
        worker: WorkerId,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Refusal>> + Send {
        let (parts, body) = request.into_parts();
        let served = self.serve_parts(Arc::new(hop), worker, Box::new(parts), body);
        async { Ok(*served.await?) }
    }

    /// As [`Self::serve`]. The large things are boxed, as each future they pass through would hold a
    /// copy of them otherwise, and move it.
    pub(super) async fn serve_parts(
        &self,
        mut hop: Arc<Hop>,
        mut worker: WorkerId,
        mut parts: Box<Parts>,
        mut body: Body,
    ) -> Result<Box<Response<Body>>, Refusal> {
        loop {
            // Refused where it comes from; this is the last door.
            if parts.method == Method::CONNECT {
                let (found, outcome) = (self.registry.get(&worker), Outcome::InternalError);
                let reason = NO_CONNECT.to_owned();
                self.refuse(&hop, &worker, found.as_ref(), outcome, Failure::Internal, reason);
                return Err(Failure::Internal.into());
            }
            if hop.depth >= DEPTH {
                let reason = format!("more than {DEPTH} Workers called each other for one request");
                let (found, outcome) = (self.registry.get(&worker), Outcome::Exception);
                self.refuse(&hop, &worker, found.as_ref(), outcome, Failure::Loop, reason);
                return Err(Failure::Loop.into());
            }
            let found = self.registry.get(&worker);
            let Some(deployed) = found else {
                let reason = "no such Worker".to_owned();
                self.refuse(&hop, &worker, None, Outcome::ScriptNotFound, Failure::ScriptNotFound, reason);
                return Err(Failure::ScriptNotFound.into());
            };
            match self.call(hop, &deployed, &parts, body).await? {
                Done::Answered(response) => return Ok(response),
                Done::HandedOn(next) => {
                    (hop, worker, body) = (Arc::new(next.hop), next.worker, next.body);
                    if let Some(changed) = next.parts {
                        *parts = changed;
                    }
                }
            }
        }
    }

    async fn call(
        &self,
        hop: Arc<Hop>,
        deployed: &Arc<Deployed>,
        parts: &Parts,
        body: Body,
    ) -> Result<Done, Refusal> {
        let limits = self.ceilings.lowest(deployed.limits).lowest(hop.limits);
        if limits.request_body_bytes.is_some_and(|limit| body.size_hint().lower() > limit) {
            let reason = format!("the request body has {} bytes", body.size_hint().lower());
            let failure = Failure::BodyTooLarge;
            self.refuse(&hop, &deployed.id, Some(deployed), Outcome::Exception, failure, reason);
            return Err(failure.into());
        }
        // Boxed, here and below, is what few requests need: it would make all their futures larger.
        let (mut body, replay, _share) = match deployed.contract {
            Contract::Http if http_handoff::may_hand_on(deployed) => {
                let kept = Box::pin(http_handoff::keep(body, &hop.client, &self.gathered)).await;
                let (body, replay) = kept.map_err(|missing| self.missing(&hop, deployed, missing))?;
                (body, replay, None)
            }
            Contract::Ipc if gather::is_small(&body) => {
                let (body, share) = Box::pin(gather::at_hand(body, &hop.client, &self.gathered)).await;
                (body, http_handoff::Replay::Never, share)
            }
            _ => (body, http_handoff::Replay::Never, None),
        };
        let budget = Arc::new(Budget::new(limits.subrequests));
        for _ in 0..TRIES {
            let acquired = match self.pool.acquire_now(deployed) {
                Some(lease) => Ok(lease),
                None => Box::pin(self.pool.acquire(deployed, hop.egress_caller(deployed, &budget))).await,
            };
            let lease = match acquired {
                Ok(lease) => lease,
                Err(refused) => {
                    let shed = refused.failure == Failure::LoadShed;
                    let outcome = if shed { Outcome::LoadShed } else { Outcome::Exception };
                    let reason = refused.reason.as_ref().to_owned();
                    self.refuse(&hop, &deployed.id, Some(deployed), outcome, refused.failure, reason);
                    return Err(Refusal { failure: refused.failure, retry_after: refused.retry_after });
                }
            };
            let (Some(instance), Some(own)) = (lease.instance().cloned(), self.own.upgrade()) else { break };
            let invocation = Invocation::begin(own, Arc::clone(&hop), instance, limits, &budget, lease.cold);
            let limited = Limited::wrap(body, &invocation);
            let caller = Arc::clone(&invocation);
            let called = invocation.cut.unless(invocation.instance.call(parts, limited, caller)).await;
            match called.unwrap_or(Err(CallError::Gone)) {
                Ok(answer) => return self.conclude(&hop, invocation, lease, parts, answer, replay),
                Err(CallError::Unsent(back)) if invocation.verdict().is_none() => {
                    invocation.forget();
                    body = back;
                }
                Err(error) => {
                    let verdict = Box::pin(explain(&invocation, error)).await;
                    invocation.fail(verdict.outcome, verdict.failure, verdict.reason);
                    return Err(verdict.failure.into());
                }
            }
        }
        let reason = format!("{TRIES} processes in a row were gone before they got the request");
        let failure = Failure::StartFailed;
        self.refuse(&hop, &deployed.id, Some(deployed), Outcome::Exception, failure, reason);
        Err(failure.into())
    }

    /// Refuses a request without its body: no Worker gets it.
    fn missing(&self, hop: &Hop, deployed: &Arc<Deployed>, missing: Missing) -> Refusal {
        let (outcome, failure, reason, retry_after) = match missing {
            Missing::NoRoom => {
                let reason = "too much is held of request bodies already".to_owned();
                (Outcome::LoadShed, Failure::LoadShed, reason, Some(1))
            }
            Missing::Broken(error @ BodyError::Silent(_)) => {
                let reason = format!("the request: {error}");
                (Outcome::ExceededWallTime, Failure::ExceededWallTime, reason, None)
            }
            Missing::Broken(error) => {
                (Outcome::Canceled, Failure::Internal, format!("the request broke off: {error}"), None)
            }
        };
        self.refuse(hop, &deployed.id, Some(deployed), outcome, failure, reason);
        Refusal { failure, retry_after }
    }

    /// Makes a Worker's answer the client's, or finds who answers instead.
    fn conclude(
        &self,
        hop: &Hop,
        invocation: Arc<Invocation>,
        lease: Lease,
        parts: &Parts,
        answer: Answer,
        replay: http_handoff::Replay,
    ) -> Result<Done, Refusal> {
        // A request body that was too large is the client's to hear of, whatever the Worker said.
        if let Some(verdict) = invocation.verdict() {
            return Err(verdict.failure.into());
        }
        let bad = |reason: String| {
            invocation.fail(Outcome::Exception, Failure::BadResponse, reason);
            Refusal::from(Failure::BadResponse)
        };
        let mut response = match answer {
            Answer::Response(response) => response,
            Answer::Handoff(handoff) => {
                return self.hand_on(hop, &invocation, *handoff);
            }
        };
        if let Some(target) = http_handoff::target(&invocation.instance.deployed, &response).map_err(bad)? {
            let handoff = Handoff { target, head: None, body: replay.body().map_err(bad)? };
            return self.hand_on(hop, &invocation, handoff);
        }
        let asked = || asks_to_switch(&parts.method, parts.version, &parts.headers);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS && !asked() {
            return Err(bad("switches protocols, which the request did not ask for".into()));
        }
        strip_response(&mut response, &parts.method);
        invocation.answered(response.status());
        if self.timing {
            self.tell_timing(&invocation, &mut response);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            invocation.tunnel();
            tie(&mut response, invocation, lease);
            return Ok(Done::Answered(response));
        }
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = Accounted::wrap(body, invocation, lease);
        Ok(Done::Answered(response))
    }

    fn hand_on(&self, hop: &Hop, invocation: &Arc<Invocation>, handoff: Handoff) -> Result<Done, Refusal> {
        let Handoff { target, head: mut parts, body } = handoff;
        match self.resolve(invocation, target) {
            Ok((next, worker)) => {
                invocation.settle(true);
                if let Some(changed) = &mut parts {
                    strip_request(&changed.method, changed.version, &mut changed.headers);
                }
                let hop = Hop { depth: hop.depth.saturating_add(1), ..next };
                Ok(Done::HandedOn(Box::new(HandedOn { hop, worker, parts, body })))
            }
            Err(error) => {
                let (outcome, failure) = super::bindings::failure(&error);
                invocation.fail(outcome, failure, format!("hands its request on: {error:?}"));
                Err(failure.into())
            }
        }
    }

    fn tell_timing(&self, invocation: &Invocation, response: &mut Response<Body>) {
        let (cpu, wall) = invocation.spent();
        let text = format!(
            "worker;desc=\"{}\";dur={:.3}, cpu;desc=\"{}\";dur={:.3}",
            invocation.instance.deployed.id,
            wall.as_secs_f64() * 1e3,
            invocation.instance.deployed.id,
            cpu.as_secs_f64() * 1e3,
        );
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().append("server-timing", value);
        }
    }

    /// Records a request that never reached a process.
    fn refuse(
        &self,
        hop: &Hop,
        worker: &WorkerId,
        deployed: Option<&Arc<Deployed>>,
        outcome: Outcome,
        failure: Failure,
        reason: String,
    ) {
        self.telemetry.record(Event {
            time: SystemTime::now(),
            worker: worker.clone(),
            version: deployed.map_or_else(|| Arc::from(""), |deployed| Arc::clone(&deployed.version)),
            detail: Detail::Invocation(telemetry::Invocation {
                ray: Arc::clone(&hop.ray),
                outcome,
                error: Some(failure),
                reason: Some(reason),
                status: None,
                cpu_us: 0,
                wall_us: 0,
                request_bytes: 0,
                response_bytes: 0,
                subrequests: 0,
                depth: hop.depth,
                via: hop.via.clone(),
                cold: false,
            }),
        });
    }
}

/// Ties an invocation and its place in the process to the tunnel of its answer.
fn tie(response: &mut Response<Body>, invocation: Arc<Invocation>, lease: Lease) {
    if let Some(tunnel) = Tunnel::take(response) {
        response.extensions_mut().insert(tunnel.with((invocation, lease)));
    }
}
