//! A starter whose "processes" are threads of the test that run the SDK, or a hand-written peer,
//! over real sockets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloister_supervisor::config::Routing;
use cloister_supervisor::dispatch::{Dispatcher, Hop, Parts, Refusal};
use cloister_supervisor::egress::{Egress, EgressConfig};
use cloister_supervisor::limits::{Limits, Resources};
use cloister_supervisor::pool::{self, Ended, Pool, Process, Start, StartFailed, Started};
use cloister_supervisor::registry::{
    Binding, Contract, Deployed, Digest, HttpSocket, Linkage, Registry, WorkerId,
};
use cloister_supervisor::telemetry::{Detail, Invocation, Telemetry};
use cloister_supervisor::{body::Body, runtime};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a Worker's process does with its control socket, until it is killed.
pub(crate) type Program = Arc<dyn Fn(OwnedFd, Life) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

/// What a server does that was given the address of its proxy port, until it is killed.
pub(crate) type Server = Arc<dyn Fn(SocketAddr, Life) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

/// The life of a "process".
#[derive(Clone)]
pub(crate) struct Life {
    /// A server says here where it listens.
    pub(crate) listening: watch::Sender<Option<SocketAddr>>,
    pub(crate) killed: CancellationToken,
    pub(crate) flag: Arc<AtomicBool>,
}

struct Double {
    thread: i32,
    life: Life,
    over: CancellationToken,
}

impl Process for Double {
    fn pid(&self) -> i32 {
        self.thread
    }

    fn cpu_time(&self) -> io::Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.thread))?;
        let spent = text.split(' ').next().and_then(|number| number.parse().ok());
        spent.map(Duration::from_nanos).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn kill(&self) {
        self.life.flag.store(true, Ordering::Relaxed);
        self.life.killed.cancel();
    }

    fn exited(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async move {
            self.over.cancelled().await;
            Ended { how: "over".into(), oom_killed: false, cpu: Duration::ZERO, memory_peak: None }
        })
    }

    /// It is on its way to where the server listens: whatever it is connected to afterwards, it goes there.
    fn socket(&self) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async {
            let mut listening = self.life.listening.subscribe();
            let address = listening.wait_for(Option::is_some).await.map_err(io::Error::other)?.unwrap();
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            match rustix::net::connect(&socket, &address) {
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn walls(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn inspect(&self) -> BoxFuture<'_, Option<cloister_supervisor::launch::Inspection>> {
        Box::pin(async { None }) // there are no walls to look at
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Default)]
pub(crate) struct Starter {
    pub(crate) programs: Mutex<HashMap<String, Program>>,
    servers: Mutex<HashMap<String, Server>>,
    pub(crate) starts: AtomicU32,
}

impl Start for Starter {
    fn start<'a>(&'a self, deployed: &'a Arc<Deployed>) -> BoxFuture<'a, Result<Started, StartFailed>> {
        Box::pin(async move {
            self.starts.fetch_add(1, Ordering::Relaxed);
            let name = deployed.id.name.as_ref();
            let life = Life {
                listening: watch::Sender::new(None),
                killed: CancellationToken::new(),
                flag: Arc::default(),
            };
            let server = self.servers.lock().unwrap().get(name).cloned();
            if let Some(server) = server {
                let proxy = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                proxy.set_nonblocking(true).unwrap();
                let address = proxy.local_addr().unwrap();
                let process = start(life, move |life| server(address, life)).await;
                return Ok(Started { process, control: None, output: None, proxy: Some(proxy.into()) });
            }
            let program = self.programs.lock().unwrap().get(name).cloned();
            let Some(program) = program else {
                return Err(StartFailed { message: "no such program".into(), permanent: true });
            };
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .map_err(|error| StartFailed { message: error.to_string(), permanent: false })?;
            let process = start(life, move |life| program(theirs, life)).await;
            Ok(Started { process, control: Some(ours), output: None, proxy: None })
        })
    }
}

/// Starts a thread that does what `program` says.
async fn start(
    life: Life,
    program: impl FnOnce(Life) -> Pin<Box<dyn Future<Output = ()>>> + Send + 'static,
) -> Arc<Double> {
    let over = CancellationToken::new();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let (thread_life, thread_over) = (life.clone(), over.clone());
    std::thread::spawn(move || {
        let _ = sender.send(rustix::thread::gettid().as_raw_nonzero().get());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let killed = thread_life.killed.clone();
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            tokio::select! {
                () = program(thread_life) => {}
                () = killed.cancelled() => {}
            }
        });
        drop(runtime);
        thread_over.cancel();
    });
    let thread = receiver.await.unwrap();
    Arc::new(Double { thread, life, over })
}

/// A whole data plane but for the front door and the launcher.
pub(crate) struct Plane {
    pub(crate) starter: Arc<Starter>,
    pub(crate) registry: Registry,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) telemetry: Telemetry,
}

impl Plane {
    pub(crate) fn new() -> Self {
        Self::with(pool::Options::default())
    }

    pub(crate) fn with(options: pool::Options) -> Self {
        let starter = Arc::new(Starter::default());
        let (registry, telemetry) = (Registry::default(), Telemetry::default());
        let pool = Pool::new(starter.clone(), registry.clone(), telemetry.clone(), options);
        let dispatcher = Dispatcher::new(Parts {
            registry: registry.clone(),
            pool,
            egress: Egress::start(&EgressConfig::default()).unwrap(),
            telemetry: telemetry.clone(),
            routing: Routing::default(),
            ceilings: Limits::default(),
            timing: true,
        });
        let _ = runtime::shard();
        Self { starter, registry, dispatcher, telemetry }
    }

    /// Deploys a Worker whose process runs `program`.
    pub(crate) fn deploy(&self, deployed: Deployed, program: Program) {
        self.starter.programs.lock().unwrap().insert(deployed.id.name.as_ref().to_owned(), program);
        self.publish(deployed);
    }

    /// Deploys a Worker whose process runs `server`.
    pub(crate) fn deploy_server(&self, deployed: Deployed, server: Server) {
        self.starter.servers.lock().unwrap().insert(deployed.id.name.as_ref().to_owned(), server);
        self.publish(deployed);
    }

    fn publish(&self, deployed: Deployed) {
        let mut snapshot = (**self.registry.snapshot()).clone();
        snapshot.insert(Arc::new(deployed));
        self.registry.publish(snapshot);
    }

    /// Deploys a closure by the SDK.
    pub(crate) fn sdk<F, Fut>(&self, deployed: Deployed, handler: F)
    where
        F: Fn(cloister::Request, cloister::Env, cloister::Context) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<cloister::Response, cloister::BoxError>> + 'static,
    {
        let program: Program = Arc::new(move |control, _| {
            let handler = handler.clone();
            Box::pin(async move {
                let _ = cloister::run_on(control, handler).await;
            })
        });
        self.deploy(deployed, program);
    }

    pub(crate) async fn ask(&self, worker: &str, request: Request<Body>) -> Result<Response<Body>, Refusal> {
        self.ask_within(worker, request, Limits::default()).await
    }

    pub(crate) async fn ask_within(
        &self,
        worker: &str,
        request: Request<Body>,
        limits: Limits,
    ) -> Result<Response<Body>, Refusal> {
        let mut hop = Hop::first("ray".into(), "192.0.2.1".into());
        hop.limits = limits;
        self.dispatcher.serve(hop, account(worker), request).await
    }

    /// The invocations of a Worker that are over.
    pub(crate) fn invocations(&self, worker: &WorkerId) -> Vec<Invocation> {
        let events = self.telemetry.recent(worker);
        let invocation = |detail: &Detail| match detail {
            Detail::Invocation(invocation) => Some(invocation.clone()),
            _ => None,
        };
        events.iter().filter_map(|event| invocation(&event.detail)).collect()
    }
}

pub(crate) fn account(name: &str) -> WorkerId {
    WorkerId { namespace: None, name: name.into() }
}

pub(crate) fn worker(name: &str) -> Deployed {
    Deployed {
        id: account(name),
        version: "1".into(),
        digest: Digest::parse(&"0".repeat(64)).unwrap(),
        binary: "/nowhere".into(),
        linkage: Linkage::Static,
        contract: Contract::Ipc,
        socket: HttpSocket::Listen,
        args: Vec::new(),
        bindings: BTreeMap::new(),
        limits: Limits::default(),
        resources: Resources::default(),
        allow: BTreeSet::new(),
        instances: 1,
        concurrency: 64,
        files: None,
        tags: BTreeSet::new(),
    }
}

/// A dispatch Worker bound to the namespace `customers`.
pub(crate) fn dispatcher(name: &str) -> Deployed {
    let binding = Binding::DispatchNamespace { namespace: "customers".into(), outbound: None };
    Deployed { bindings: BTreeMap::from([("DISPATCHER".to_owned(), binding)]), ..worker(name) }
}

pub(crate) fn customer(name: &str) -> Deployed {
    let id = WorkerId { namespace: Some("customers".into()), name: name.into() };
    Deployed { id, ..worker(name) }
}

pub(crate) fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).unwrap()
}

pub(crate) async fn text(response: Response<Body>) -> String {
    use http_body_util::BodyExt as _;
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
