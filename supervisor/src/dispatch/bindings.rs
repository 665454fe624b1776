//! What Workers call: other Workers by their bindings, and the world through the egress filter.

use std::sync::Arc;

use cloister_ipc::worker::{DispatchOptions, FetchError, OutboundContext, Target};
use futures_util::future::BoxFuture;
use http::{Request, Response};

use super::headers::strip_request;
use super::{Dispatcher, Hop, Invocation, Refusal};
use crate::body::Body;
use crate::egress::{
    BindingTarget, Bindings, Caller as EgressCaller, EgressError, OutboundCall, OutboundInvoker,
};
use crate::limits::Limits;
use crate::outcome::{Failure, Outcome};
use crate::pool::{BACKGROUND, Instance, ProxyServer};
use crate::registry::{Binding, Deployed, Name, WorkerId};

/// Bytes that a connection to a proxy port keeps unsent.
const UNSENT_BYTES: u32 = 64 * 1024;

/// A request as the next Worker shall see it.
fn prepare(mut request: Request<Body>) -> Request<Body> {
    let (method, version) = (request.method().clone(), request.version());
    strip_request(&method, version, request.headers_mut());
    request
}

/// How the failure of a hand-over is recorded, and what the client is told.
pub(super) fn failure(error: &FetchError) -> (Outcome, Failure) {
    match error {
        FetchError::NotFound => (Outcome::ScriptNotFound, Failure::ScriptNotFound),
        FetchError::Subrequests => (Outcome::ExceededSubrequests, Failure::Exception),
        FetchError::Worker { code, .. } if *code == Failure::LoadShed.code() => {
            (Outcome::LoadShed, Failure::LoadShed)
        }
        _ => (Outcome::Exception, Failure::Exception),
    }
}

fn refused(refusal: Refusal) -> FetchError {
    match refusal.failure {
        Failure::ScriptNotFound => FetchError::NotFound,
        failure => FetchError::Worker { code: failure.code(), message: failure.message().to_owned() },
    }
}

/// Takes the call's place among those of the process that waits for its answer: a Worker that does not answer holds
/// some of them, and not all that there are for every Worker.
fn with_place((hop, worker): (Hop, WorkerId), caller: &Instance) -> Result<(Hop, WorkerId), FetchError> {
    match caller.callees.take(worker.clone()) {
        Some(place) => Ok((Hop { _place: Some(Arc::new(place)), ..hop }, worker)),
        None => {
            let each = caller.callees.each();
            let message = format!("{worker} has {each} calls of this process to answer already");
            Err(FetchError::Worker { code: Failure::LoadShed.code(), message })
        }
    }
}

/// The Worker a dispatch call names, and its outbound Worker.
fn dispatched(
    binding: &Binding,
    worker: &str,
    options: &DispatchOptions,
) -> Result<(WorkerId, Option<OutboundCall>), FetchError> {
    let Binding::DispatchNamespace { namespace, outbound } = binding else {
        return Err(FetchError::Invalid("the binding is not a dispatch_namespace".into()));
    };
    // No Worker has a name that is none.
    let name = Name::parse(worker).map_err(|_| FetchError::NotFound)?;
    let id = WorkerId { namespace: Some(Arc::clone(namespace)), name: name.as_str().into() };
    let Some(outbound) = outbound else {
        return match options.outbound.first() {
            Some(_) => Err(FetchError::Invalid("the binding has no outbound Worker for parameters".into())),
            None => Ok((id, None)),
        };
    };
    if let Some((name, _)) = options.outbound.iter().find(|(name, _)| !outbound.params.contains(name)) {
        let known = outbound.params.join(", ");
        return Err(FetchError::Invalid(format!("unknown outbound parameter {name}; known: {known}")));
    }
    let worker = WorkerId { namespace: None, name: Arc::clone(&outbound.worker) };
    Ok((id, Some(OutboundCall { worker, params: options.outbound.clone() })))
}

impl Dispatcher {
    /// The next hop for a call by a binding; takes a subrequest.
    pub(super) fn resolve(
        &self,
        invocation: &Invocation,
        target: Target,
    ) -> Result<(Hop, WorkerId), FetchError> {
        let caller = invocation.egress_caller();
        self.next_hop(&caller, &invocation.instance.deployed, &invocation.hop.client, target)
    }

    fn next_hop(
        &self,
        caller: &EgressCaller,
        deployed: &Deployed,
        client: &Arc<str>,
        target: Target,
    ) -> Result<(Hop, WorkerId), FetchError> {
        caller.subrequests.take().map_err(|_| FetchError::Subrequests)?;
        let next = Hop::next(&caller.ray, client, caller.depth, caller.worker.clone());
        let unknown = |name: &str| FetchError::Invalid(format!("there is no binding {name}"));
        match target {
            Target::Egress => Err(FetchError::Invalid("not a Worker".into())),
            Target::Dispatch { binding, worker, options } => {
                let bound = deployed.bindings.get(&binding).ok_or_else(|| unknown(&binding))?;
                let (id, outbound) = dispatched(bound, &worker, &options)?;
                let limits = Limits {
                    cpu_ms: options.cpu_ms,
                    wall_ms: options.wall_ms,
                    subrequests: options.subrequests,
                    request_body_bytes: None,
                };
                Ok((Hop { limits, args: options.args, outbound, ..next }, id))
            }
            Target::Service { binding } => match deployed.bindings.get(&binding) {
                Some(Binding::Service { service }) => {
                    Ok((next, WorkerId { namespace: None, name: Arc::clone(service) }))
                }
                Some(_) => Err(FetchError::Invalid(format!("{binding} is not a service binding"))),
                None => Err(unknown(&binding)),
            },
        }
    }

    /// For whom a Worker asks through its proxy port while it has no call: as it starts, or after an
    /// answer. What its dispatch calls send through an outbound Worker goes there then, too.
    fn between_calls(&self, instance: &Instance) -> EgressCaller {
        let deployed = &instance.deployed;
        let limits = self.ceilings.lowest(deployed.limits);
        let (outbound, subrequests, depth) = instance.between_calls(limits.subrequests);
        let namespace = deployed.id.namespace.as_deref();
        EgressCaller {
            worker: deployed.id.clone(),
            version: Arc::clone(&deployed.version),
            ray: Arc::from(BACKGROUND),
            depth,
            subrequests,
            outbound: outbound.or_else(|| self.registry.snapshot().outbound_of(namespace?)),
            on_behalf_of: None,
        }
    }

    /// Lets a Worker wait whose requests come to nothing before the filter sees them, when there are many.
    pub(super) async fn pace(&self, invocation: &Invocation) {
        self.egress.pace(&invocation.egress_caller(), false).await;
    }

    /// Makes an outgoing request of a Worker.
    pub(super) async fn fetch(
        self: Arc<Self>,
        invocation: &Arc<Invocation>,
        target: Target,
        request: Request<Body>,
    ) -> Result<Response<Body>, FetchError> {
        if matches!(target, Target::Egress) {
            let caller = invocation.egress_caller();
            let error = match self.egress.fetch(&caller, request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let judged = !matches!(error, EgressError::Invalid(_) | EgressError::Subrequests(_));
            self.egress.pace(&caller, judged).await;
            return Err(error.into());
        }
        let next = match self.resolve(invocation, target) {
            Ok(next) => next,
            Err(error) => {
                self.pace(invocation).await;
                return Err(error);
            }
        };
        let (hop, worker) = with_place(next, &invocation.instance).inspect_err(|error| {
            invocation.callee_failed(failure(error).1);
        })?;
        self.serve(hop, worker, prepare(request)).await.map_err(|refusal| {
            invocation.callee_failed(refusal.failure);
            refused(refusal)
        })
    }
}

impl OutboundInvoker for Dispatcher {
    fn invoke<'a>(
        &'a self,
        outbound: &'a WorkerId,
        context: OutboundContext,
        caller: &'a EgressCaller,
        req: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Failure>> {
        Box::pin(async move {
            let next = Hop::next(&caller.ray, &Arc::from(""), caller.depth, caller.worker.clone());
            let hop = Hop { as_outbound: Some(context), on_behalf_of: Some(caller.worker.clone()), ..next };
            let response = self.serve(hop, outbound.clone(), prepare(req)).await;
            response.map_err(|refusal| refusal.failure)
        })
    }
}

/// What a process of the `http` contract was given by the version it was started from.
struct Given {
    dispatcher: Arc<Dispatcher>,
    instance: Arc<Instance>,
}

impl Bindings for Given {
    fn call<'a>(
        &'a self,
        caller: &'a EgressCaller,
        target: BindingTarget,
        req: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Failure>> {
        Box::pin(async move {
            let deployed = &self.instance.deployed;
            let name = |wanted: &str| {
                let mut names = deployed.bindings.keys();
                names.find(|name| name.eq_ignore_ascii_case(wanted)).cloned().unwrap_or_default()
            };
            let target = match target {
                BindingTarget::Service { binding } => Target::Service { binding: name(&binding) },
                BindingTarget::Dispatch { binding, worker } => {
                    let options = DispatchOptions::default();
                    Target::Dispatch { binding: name(&binding), worker, options }
                }
            };
            let next = self.dispatcher.next_hop(caller, deployed, &Arc::from(""), target);
            let next = next.and_then(|next| with_place(next, &self.instance));
            let (hop, worker) = next.map_err(|error| failure(&error).1)?;
            let response = self.dispatcher.serve(hop, worker, prepare(req)).await;
            response.map_err(|refusal| refusal.failure)
        })
    }
}

impl ProxyServer for Dispatcher {
    fn serve_proxy(self: Arc<Self>, instance: Arc<Instance>, stream: tokio::net::TcpStream) {
        let egress = Arc::clone(&self.egress);
        let given = Given { dispatcher: Arc::clone(&self), instance: Arc::clone(&instance) };
        let caller = move || instance.current_caller().unwrap_or_else(|| self.between_calls(&instance));
        // This end of the socket is the supervisor's: what the Worker does not read would be charged to it.
        let _ = cloister_sys::bound_unsent(&stream, UNSENT_BYTES);
        tokio::spawn(egress.serve_proxy(stream, caller, given));
    }
}
