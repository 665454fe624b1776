//! The data plane without the rest: front door, routes, pool, telemetry and the SDK Worker, but no walls, no
//! launcher, no store. For a profiler, and for callgrind, where a whole platform is too much.
//!
//! `cloister-bench-hop PORT PATH-OF-bench-worker [PATH-OF-bench-dispatch]` serves on 127.0.0.1:PORT until it is
//! killed: `bench.test` is the Worker, `bench.tail.test` the same behind a dispatch Worker that hands each request on.

#![forbid(unsafe_code)]

mod unwalled;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use cloister_supervisor::config::Config;
use cloister_supervisor::dispatch::{Dispatcher, Parts};
use cloister_supervisor::egress::{Egress, EgressConfig};
use cloister_supervisor::front;
use cloister_supervisor::limits::{Limits, Resources};
use cloister_supervisor::pool::{Options, Pool};
use cloister_supervisor::registry::{
    Binding, Contract, Deployed, Digest, HttpSocket, Linkage, Registry, Snapshot, WorkerId,
};
use cloister_supervisor::runtime::{Listeners, Shards};
use cloister_supervisor::telemetry::Telemetry;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// As the benches' platforms have it.
const CONFIG: &str = r#"
[[route]]
host = "*.tail.test"
dispatch = "tail"
[[route]]
host = "*.test"
namespace = "bench"
worker = "{1}"
"#;

/// As in `cloister`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(worker)) = (arguments.next(), arguments.next()) else {
        return Err("usage: cloister-bench-hop PORT PATH-OF-bench-worker [PATH-OF-bench-dispatch]".into());
    };
    let port: u16 = port.parse()?;
    let routing = Config::parse(Path::new("cloister.toml"), CONFIG)?.routing;
    let registry = Registry::default();
    let mut snapshot = Snapshot::default();
    // `bench`, so that `bench.test` is its host.
    let user = WorkerId { namespace: Some("bench".into()), name: "bench".into() };
    snapshot.insert(Arc::new(deployed(user, worker.into(), BTreeMap::new())?));
    if let Some(dispatch) = arguments.next() {
        let namespace = Binding::DispatchNamespace { namespace: "bench".into(), outbound: None };
        let tail = Binding::PlainText("yes".into());
        let bindings = BTreeMap::from([("DISPATCHER".into(), namespace), ("TAIL".into(), tail)]);
        let id = WorkerId { namespace: None, name: "tail".into() };
        snapshot.insert(Arc::new(deployed(id, dispatch.into(), bindings)?));
    }
    registry.publish(snapshot);

    let control = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let egress = control.block_on(async { Egress::start(&EgressConfig::default()) })?;
    let telemetry = Telemetry::default();
    let options = Options { shards: 1, ..Options::default() };
    let pool = Pool::new(Arc::new(unwalled::Unwalled), registry.clone(), telemetry.clone(), options);
    let parts = Parts {
        registry,
        pool,
        egress,
        telemetry: telemetry.clone(),
        routing,
        ceilings: Limits { cpu_ms: Some(30_000), wall_ms: Some(60_000), ..Limits::default() },
        timing: false,
    };
    let dispatcher = Dispatcher::new(parts);
    let mut listeners = Listeners::bind(&[([127, 0, 0, 1], port).into()], NonZeroUsize::MIN)?;
    let sockets = Mutex::new(listeners.take(0));
    let _shards = Shards::start(NonZeroUsize::MIN, move |shard| {
        let sockets = std::mem::take(&mut *sockets.lock().unwrap_or_else(PoisonError::into_inner));
        let dispatcher = Arc::clone(&dispatcher);
        async move {
            if let Err(error) = front::serve(sockets, dispatcher, front::Options::default(), shard.stop).await
            {
                eprintln!("front door: {error}");
            }
        }
    })?;
    control.block_on(telemetry.run());
    Ok(())
}

fn deployed(id: WorkerId, binary: PathBuf, bindings: BTreeMap<String, Binding>) -> Result<Deployed, Failure> {
    Ok(Deployed {
        id,
        version: "0192f0c1-a2b3-7c5d-8e9f-000000000001".into(),
        digest: Digest::parse(&"0".repeat(64)).ok_or("no digest")?,
        binary,
        linkage: Linkage::Static,
        contract: Contract::Ipc,
        socket: HttpSocket::Listen,
        args: Vec::new(),
        bindings,
        limits: Limits::default(),
        resources: Resources::default(),
        allow: BTreeSet::new(),
        instances: 1,
        concurrency: 1 << 20,
        files: None,
        tags: BTreeSet::new(),
    })
}
