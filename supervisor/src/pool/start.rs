//! From a version to a process that is ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use cloister_ipc::descriptors;

use super::instance::Link;
use super::process::Started;
use super::slot::Slot;
use super::{Fate, Instance, Pool, StartFailed};
use crate::egress::Caller as EgressCaller;
use crate::launch::Net;
use crate::registry::{Contract, Deployed};
use crate::telemetry::{Detail, Event, capture};
use crate::worker::http::Upstream;
use crate::worker::ipc::{is_gone, start_record};

/// Where a Worker of the `http` contract listens, in its own network namespace.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), Net::PORT);

/// How long the sockets of a process that is over may hold its last words.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a probe found.
#[derive(Debug, Clone)]
pub struct Startup {
    /// From asking for the process until it was ready, milliseconds.
    pub startup_ms: u64,
    /// What was really enforced.
    pub walls: serde_json::Value,
}

/// Starts a process for a slot and tells the slot.
pub(super) async fn run(pool: Pool, slot: Arc<Slot>, deployed: Arc<Deployed>, cause: EgressCaller) {
    let begun = Instant::now();
    let result = pool.launch(&deployed, Arc::downgrade(&slot), Some(cause)).await;
    let metrics = pool.0.telemetry.metrics();
    match &result {
        Ok(instance) => {
            metrics.start_seconds.observe(begun.elapsed().as_secs_f64());
            let message = format!("started in {} µs", begun.elapsed().as_micros());
            pool.note(&deployed, message, Some(instance.pid()));
        }
        Err(error) => {
            metrics.failed_starts.inc();
            pool.note(&deployed, format!("did not start: {error}"), None);
        }
    }
    slot.started(&pool, &deployed, result);
}

impl Pool {
    /// Starts `deployed` once behind its walls, waits until it is ready and ends it again. Ready is:
    /// `ipc`, it said hello; `http`, its port accepted, and if it answered to `GET /`, it was HTTP.
    ///
    /// # Errors
    /// It did not start, ended at once, was not ready in time or answered garbage: the text says so.
    pub async fn probe(&self, deployed: &Arc<Deployed>) -> Result<Startup, StartFailed> {
        let begun = Instant::now();
        let instance = self.launch(deployed, Weak::new(), None).await?;
        let limit = self.0.options.start_timeout;
        let checked = match &instance.link {
            Link::Ipc { .. } => match instance.connection() {
                Ok(Some(connection)) => match tokio::time::timeout(limit, connection.greeting()).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(self.died(&instance).await),
                    Err(_) => Err(format!("did not say hello within {limit:?}: is it linked with the SDK?")),
                },
                Ok(None) => Err(self.died(&instance).await),
                Err(error) => Err(error.to_string()),
            },
            Link::Http(upstream) => match upstream.probe(limit).await {
                Ok(()) if instance.is_doomed() => Err(self.died(&instance).await),
                checked => checked,
            },
        };
        let startup_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let walls = instance.process.walls();
        instance.kill(Fate::Killed);
        match checked {
            Ok(()) => Ok(Startup { startup_ms, walls }),
            Err(message) => Err(StartFailed { message, permanent: true }),
        }
    }

    async fn died(&self, instance: &Arc<Instance>) -> String {
        if let Some(Fate::Violation(text)) = instance.fate() {
            return format!("broke the protocol: it {text}");
        }
        match instance.ended(Duration::from_secs(1)).await {
            Some(ended) if ended.oom_killed => "ended before it was ready: out of memory".into(),
            Some(ended) => format!("ended before it was ready: {}", ended.how),
            None => "closed its connection before it was ready".into(),
        }
    }

    /// Starts a process. `ipc` Workers count as ready at once: requests wait in their socket.
    async fn launch(
        &self,
        deployed: &Arc<Deployed>,
        slot: Weak<Slot>,
        cause: Option<EgressCaller>,
    ) -> Result<Arc<Instance>, StartFailed> {
        let failed = |message: String| StartFailed { message, permanent: false };
        let limit = self.0.options.start_timeout;
        let started = tokio::time::timeout(limit, self.0.starter.start(deployed)).await;
        let Started { process, control, output, proxy } =
            started.map_err(|_| failed(format!("no process within {limit:?}")))??;
        if let Some((stdout, stderr)) = output {
            let telemetry = &self.0.telemetry;
            tokio::spawn(capture(telemetry.clone(), Arc::clone(deployed), "stdout", stdout));
            tokio::spawn(capture(telemetry.clone(), Arc::clone(deployed), "stderr", stderr));
        }
        let link = match (deployed.contract, control) {
            (Contract::Ipc, Some(control)) => {
                let sent =
                    start_record(deployed).and_then(|record| descriptors::send(&control, &record, &[]));
                // A Worker that is gone already is found by its exit.
                if let Err(error) = sent
                    && !is_gone(&error)
                {
                    process.kill();
                    return Err(failed(format!("can't be told its bindings: {error}")));
                }
                let connections = (0..self.0.options.shards.max(1)).map(|_| Mutex::default()).collect();
                Link::Ipc { control: Arc::new(control), connections }
            }
            (Contract::Ipc, None) => return Err(failed("the process came without a control socket".into())),
            (Contract::Http, _) => Link::Http(Upstream::new(ADDRESS, self.0.options.shards)),
        };
        let instance = Instance::new(self.next_number(), Arc::clone(deployed), process, slot, link, cause);
        instance.last_used.store(self.milliseconds(), std::sync::atomic::Ordering::Relaxed);
        self.0.telemetry.metrics().starts.inc();
        self.0.telemetry.metrics().processes.inc();
        tokio::spawn(self.clone().follow(Arc::clone(&instance)));
        if let Some(proxy) = proxy {
            tokio::spawn(self.clone().accept(Arc::downgrade(&instance), proxy));
        }
        match &instance.link {
            Link::Http(upstream) => {
                let ready = upstream.ready(&*instance.process, limit);
                let result = tokio::select! {
                    ready = ready => ready,
                    _ = instance.process.exited() => Err("ended before it listened on its port".into()),
                };
                if let Err(message) = result {
                    instance.kill(Fate::NotReady(message.clone()));
                    return Err(failed(message));
                }
                instance.set_greeted();
            }
            Link::Ipc { .. } => {
                let connection = instance.connection().map_err(|error| failed(error.to_string()))?;
                tokio::spawn(greeted(Arc::downgrade(&instance), connection, limit));
            }
        }
        Ok(instance)
    }

    /// Waits for the end of a process and draws the consequences.
    async fn follow(self, instance: Arc<Instance>) {
        let ended = instance.process.exited().await;
        self.0.telemetry.metrics().processes.dec();
        instance.end(ended.clone());
        // Its last words may still lie in its sockets: their end closes the connections.
        let closing = Arc::clone(&instance);
        tokio::spawn(async move {
            tokio::time::sleep(LAST_WORDS).await;
            closing.close();
        });
        // Whether it had said hello is known when its connections have ended.
        let _ = tokio::time::timeout(LAST_WORDS, instance.closed()).await;
        let why = match instance.fate() {
            Some(Fate::Closed) | None => format!("ended: {}", ended.how),
            Some(fate) => format!("ended by the supervisor: {fate:?}"),
        };
        let memory = if ended.oom_killed { ", over its memory limit" } else { "" };
        self.note(&instance.deployed, format!("{why}{memory}"), Some(instance.pid()));
        let Some(slot) = instance.slot.upgrade() else { return };
        let own =
            matches!(instance.fate(), None | Some(Fate::Closed | Fate::Violation(_) | Fate::NotReady(_)));
        if own && !instance.has_served() {
            let reason = format!("its last process {why}{memory}, before it answered anything");
            slot.crashed(&instance.deployed, reason.into(), instance.has_greeted());
        }
        slot.feed(&self);
    }

    /// Accepts connections on a Worker's proxy port.
    async fn accept(self, instance: Weak<Instance>, listener: std::os::fd::OwnedFd) {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener.into()) else { return };
        loop {
            let over = match instance.upgrade() {
                Some(instance) => instance.over(),
                None => return,
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = over.cancelled() => return,
            };
            let (Some(instance), Some(proxy)) = (instance.upgrade(), self.0.proxy.get()) else { return };
            match (accepted, proxy.upgrade()) {
                (Ok((stream, _)), Some(proxy)) => proxy.serve_proxy(instance, stream),
                // Out of descriptors, most likely: not so often.
                (Err(_), _) => tokio::time::sleep(Duration::from_millis(50)).await,
                (_, None) => return,
            }
        }
    }

    /// Notes something about a process for the Worker's owner.
    fn note(&self, deployed: &Deployed, message: String, pid: Option<i32>) {
        self.0.telemetry.record(Event {
            time: SystemTime::now(),
            worker: deployed.id.clone(),
            version: Arc::clone(&deployed.version),
            detail: Detail::Process { message, pid },
        });
    }
}

/// Ends a Worker that does not say hello in time.
async fn greeted(
    instance: Weak<Instance>,
    connection: Option<Arc<crate::worker::ipc::Connection>>,
    limit: Duration,
) {
    let Some(connection) = connection else { return };
    let greeted = tokio::time::timeout(limit, connection.greeting()).await;
    if let (Err(_), Some(instance)) = (greeted, instance.upgrade()) {
        let text = format!("did not say hello within {limit:?}: is it linked with the SDK?");
        instance.kill(Fate::NotReady(text));
    }
}
