//! The running platform: threads, signals, the end.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::adapters::{Filter, Processes, secrets};
use super::boot::Booted;
use super::error::{ServeError, exit};
use super::notify::Manager;
use crate::admin::{self, Parts, Platform, Settings, server};
use crate::config::Config;
use crate::dispatch::{self, Dispatcher};
use crate::egress::Egress;
use crate::front;
use crate::launch::Launcher;
use crate::pool::{self, Pool};
use crate::registry::Registry;
use crate::runtime::Shards;
use crate::telemetry::Telemetry;

/// Longest wait for the launcher to end its Workers.
const LAST_WAIT: Duration = Duration::from_secs(20);

/// Runs until a signal, or until the launcher is gone.
pub(super) fn run(booted: Booted) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_name("control").build();
    let runtime = runtime.map_err(|error| ServeError::step(exit::FAILED, "a runtime", error))?;
    // Shards wait for each other's start, which a thread that drives a runtime may not.
    let prepared = {
        let _entered = runtime.enter();
        prepare(booted)
    };
    let result = prepared.and_then(|prepared| runtime.block_on(serve(prepared)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// All parts, made and wired; the data plane runs already.
struct Prepared {
    config: Config,
    launcher: Launcher,
    child: Child,
    pool: Pool,
    telemetry: Telemetry,
    dispatcher: Arc<Dispatcher>,
    shards: Shards,
    router: axum::Router,
    admin_socket: std::os::unix::net::UnixListener,
    admin_file: server::SocketFile,
    admin_tcp: Option<(std::net::TcpListener, server::Token)>,
    admin_users: BTreeSet<u32>,
    addresses: Vec<SocketAddr>,
    signals: Signals,
    stop: watch::Sender<bool>,
    manager: Manager,
}

fn prepare(booted: Booted) -> Result<Prepared, ServeError> {
    let Booted {
        config,
        sandbox,
        state,
        launcher,
        child,
        mut front,
        admin_socket,
        admin_file,
        admin_tcp,
        admin_users,
        manager,
    } = booted;
    let (stop, stopped) = watch::channel(false);
    let signals = Signals::new()?;
    let registry = Registry::default();
    let telemetry = Telemetry::default();
    let egress = Egress::start(&config.egress)
        .map_err(|error| ServeError::step(exit::CONFIG, "the egress filter", error))?;
    for policy in egress.policies() {
        if let Some(why) = policy.refused {
            tracing::error!(file = %policy.file.display(), why, "egress policy refused: its scope is closed");
        }
    }
    let options = pool::Options {
        start_timeout: config.pool.start_timeout,
        idle: config.pool.idle,
        memory_bytes: config.pool.memory_bytes,
        shards: config.runtime.threads.get(),
        ..pool::Options::default()
    };
    let pool = Pool::new(Arc::new(launcher.clone()), registry.clone(), telemetry.clone(), options);
    let parts = Parts {
        registry: registry.clone(),
        pool: Arc::new(Processes { pool: pool.clone(), telemetry: telemetry.clone() }),
        egress: Arc::new(Filter(Arc::clone(&egress))),
        telemetry: telemetry.clone(),
        stop: stopped.clone(),
    };
    let settings = Settings {
        account: config.account.clone(),
        upload_bytes: config.listen.upload_bytes,
        sandbox: Arc::new(sandbox),
    };
    let platform = Platform::open(settings, state, parts).map_err(|error| {
        let what = format!("state folder {}", config.state.display());
        ServeError::step(exit::STATE, what, error).fix("restore the state folder from a backup")
    })?;
    let dispatcher = Dispatcher::new(dispatch::Parts {
        registry: registry.clone(),
        pool: pool.clone(),
        egress: Arc::clone(&egress),
        telemetry: telemetry.clone(),
        routing: config.routing.clone(),
        ceilings: config.limits,
        timing: config.telemetry.server_timing,
    });
    egress.lend_secrets(Arc::new(secrets(registry)));
    egress.lend_outbound(Arc::clone(&dispatcher) as _);

    let addresses = front.addresses().to_vec();
    let shards = start_shards(&config, &mut front, &dispatcher)?;
    let router = admin::router(Arc::new(platform));
    Ok(Prepared {
        config,
        launcher,
        child,
        pool,
        telemetry,
        dispatcher,
        shards,
        router,
        admin_socket,
        admin_file,
        admin_tcp,
        admin_users,
        addresses,
        signals,
        stop,
        manager,
    })
}

async fn serve(prepared: Prepared) -> Result<(), ServeError> {
    let Prepared { config, launcher, mut child, dispatcher, shards, router, stop, manager, .. } = prepared;
    tokio::spawn(prepared.telemetry.run());
    tokio::spawn(prepared.pool.keep());
    let users = prepared.admin_users;
    let unix =
        tokio::spawn(server::serve_unix(prepared.admin_socket, router.clone(), users, stop.subscribe()));
    let tcp = prepared
        .admin_tcp
        .map(|(listener, token)| tokio::spawn(server::serve_tcp(listener, router, token, stop.subscribe())));
    watchdog(manager.clone());
    manager.tell(&NotifyState::Ready);
    let admin = config.listen.admin_socket.display();
    tracing::info!(addresses = ?prepared.addresses, %admin, "ready");

    let ended = prepared.signals.wait(&config, &dispatcher, &launcher).await;
    manager.tell(&NotifyState::Stopping);
    stop.send_replace(true);
    shards.stop();
    let drained = tokio::task::spawn_blocking(move || shards.join());
    tokio::select! {
        joined = drained => if let Ok(Err(error)) = joined {
            tracing::error!(%error, "data plane");
        },
        () = interrupted() => tracing::warn!("told again to end: open requests are cut off"),
    }
    for listener in [Some(unix), tcp].into_iter().flatten() {
        if let Ok(Err(error)) = listener.await {
            tracing::error!(%error, "admin listener");
        }
    }
    if tokio::time::timeout(LAST_WAIT, launcher.shutdown()).await.is_err() {
        tracing::error!("the launcher did not end within {LAST_WAIT:?}");
    }
    reap(&mut child);
    drop(prepared.admin_file);
    tracing::info!("ended");
    ended
}

fn start_shards(
    config: &Config,
    front: &mut crate::runtime::Listeners,
    dispatcher: &Arc<Dispatcher>,
) -> Result<Shards, ServeError> {
    let threads = config.runtime.threads;
    let listeners: Vec<_> =
        (0..threads.get()).map(|shard| std::sync::Mutex::new(front.take(shard))).collect();
    let dispatcher = Arc::clone(dispatcher);
    let main = move |shard: crate::runtime::Shard| {
        let taken = listeners
            .get(shard.index)
            .map(|slot| std::mem::take(&mut *slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner)));
        let serving = front::serve(
            taken.unwrap_or_default(),
            Arc::clone(&dispatcher),
            front::Options::default(),
            shard.stop,
        );
        async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "front door");
            }
        }
    };
    Shards::start(threads, main).map_err(|error| ServeError::step(exit::FAILED, "data plane threads", error))
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, ServeError> {
        let listen = |kind| signal(kind).map_err(|error| ServeError::step(exit::FAILED, "signals", error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the end; reloads routes on SIGHUP.
    async fn wait(
        mut self,
        config: &Config,
        dispatcher: &Dispatcher,
        launcher: &Launcher,
    ) -> Result<(), ServeError> {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => { tracing::info!("told to end (SIGTERM)"); return Ok(()) }
                _ = self.interrupt.recv() => { tracing::info!("told to end (SIGINT)"); return Ok(()) }
                _ = self.hangup.recv() => reload(config, dispatcher),
                why = launcher.gone() => {
                    return Err(ServeError::step(exit::WALLS, "the launcher is gone", why)
                        .fix("start the supervisor again; its log tells what the launcher said last"));
                }
            }
        }
    }
}

/// Takes the routes of the file as it is now; a file with a mistake changes nothing.
fn reload(config: &Config, dispatcher: &Dispatcher) {
    match Config::load(&config.path) {
        Ok(new) => {
            let routes = new.routing.routes.len();
            dispatcher.set_routing(new.routing);
            tracing::info!(
                routes,
                "routes reloaded; other keys are read at start only, policies by themselves"
            );
        }
        Err(error) => tracing::error!(%error, "not reloaded, the old routes stay"),
    }
}

async fn interrupted() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Tells the service manager that the control plane lives, as often as it wants to hear it.
fn watchdog(manager: Manager) {
    let mut microseconds = 0;
    if !sd_notify::watchdog_enabled(false, &mut microseconds) || microseconds == 0 {
        return;
    }
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_micros(microseconds / 2));
        loop {
            interval.tick().await;
            manager.tell(&NotifyState::Watchdog);
        }
    });
}

fn reap(child: &mut Child) {
    match child.try_wait() {
        Ok(Some(status)) if !status.success() => tracing::warn!(%status, "the launcher ended"),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the launcher's end is not known"),
    }
}
