//! The steps that need privilege, and the drop of it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Child;

use cloister_policies::sandbox::SandboxPolicy;

use super::confine::{self, Paths};
use super::error::{ServeError, exit};
use super::notify::Manager;
use super::privilege::{self, Account};
use crate::admin::server::{self, SocketFile, Token};
use crate::config::Config;
use crate::doctor::{Trial, missing_walls};
use crate::launch::{Configure, Launcher, Options, Runner};
use crate::runtime::Listeners;
use crate::store::{StateDir, StateError};

/// Distinct specs for which blanks are kept ready.
const SPECS: usize = 4;

/// What is there when privilege is gone.
#[derive(Debug)]
pub(super) struct Booted {
    pub(super) config: Config,
    pub(super) sandbox: SandboxPolicy,
    pub(super) state: StateDir,
    pub(super) launcher: Launcher,
    pub(super) child: Child,
    pub(super) front: Listeners,
    pub(super) admin_socket: UnixListener,
    pub(super) admin_file: SocketFile,
    pub(super) admin_tcp: Option<(std::net::TcpListener, Token)>,
    pub(super) admin_users: BTreeSet<u32>,
    pub(super) manager: Manager,
}

/// Does all that needs privilege, gives it up, and configures the launcher.
pub(super) fn boot(config: Config) -> Result<Booted, ServeError> {
    let account = privilege::account(&config)?;
    privilege::raise_descriptor_limit();
    privilege::raise_core_limit();
    let sandbox = sandbox_policy(&config)?;
    let admin_users = server::uids(&config.listen.admin_users)
        .map_err(|why| ServeError::step(exit::CONFIG, config.path.display().to_string(), why))?;
    let owner = account.from_root.then_some((account.uid, account.gid));
    let state = StateDir::open(&config.state, owner).map_err(state_error)?;
    if !account.from_root {
        unprivileged(&config, &account)?;
    }
    let front = Listeners::bind(&config.listen.http, config.runtime.threads)
        .map_err(|error| listen_error("listen.http", "front door", &error))?;
    let admin_socket = admin_socket(&config.listen.admin_socket, &account)?;
    let admin_file = SocketFile(config.listen.admin_socket.clone());
    let admin_tcp = config.listen.admin_tcp.as_ref().map(|tcp| {
        let token = Token::read(&tcp.token_file).map_err(|error| {
            ServeError::step(
                exit::CONFIG,
                format!("listen.admin_token_file {}", tcp.token_file.display()),
                error,
            )
        })?;
        let listener = server::bind_tcp(tcp.address).map_err(|error| {
            listen_error("listen.admin_tcp", &format!("admin API on {}", tcp.address), &error)
        })?;
        Ok::<_, ServeError>((listener, token))
    });
    let admin_tcp = admin_tcp.transpose()?;
    let runner = runner_path(&config)?;
    let Runner { child, socket } = Runner::spawn(&runner).map_err(|error| {
        ServeError::step(exit::WALLS, "starting the launcher", error)
            .fix("install sandbox-runner beside cloister, or name it by sandbox.runner")
    })?;
    let manager = Manager::from_environment()
        .map_err(|error| ServeError::step(exit::FAILED, "the service manager (NOTIFY_SOCKET)", error))?;
    privilege::drop_to(&account)?;
    reachable(&config.state, &account)?;
    let no_trial = |error| {
        ServeError::step(exit::WALLS, "raising the walls around a trial Worker", error)
            .fix("`cloister doctor` tells what this machine can raise; a wall may be waived by name in sandbox.waive")
    };
    let trial = Trial::prepare(&runner, &config.state.join("staging")).map_err(no_trial)?;
    // Before the first thread: both walls are a thread's and its children's.
    let confined = confine::confine(&Paths::of(&config), &config.sandbox.waive_own).map_err(|error| {
        let fix = error.fix();
        ServeError::step(exit::WALLS, "confining the supervisor", error).fix(fix)
    })?;
    let options = Options {
        configure: Configure {
            uid_base: config.sandbox.uids.start,
            uid_count: config.sandbox.uids.end - config.sandbox.uids.start,
            waived: config.sandbox.waive.iter().copied().collect(),
        },
        blanks: config.pool.blanks,
        specs: SPECS,
        start_timeout: config.pool.start_timeout,
    };
    let launcher = Launcher::connect(socket, options).map_err(|error| {
        ServeError::step(exit::WALLS, "the launcher", error).fix(
            "`cloister doctor` tells which walls this machine can raise; a wall may be waived by name in sandbox.waive",
        )
    })?;
    // What this machine can't raise is known before anybody deploys.
    trial.run(&launcher).map_err(no_trial)?;
    tracing::info!(machine = ?launcher.machine(), waived = ?config.sandbox.waive, "walls of Workers");
    tracing::info!(?confined, waived = ?config.sandbox.waive_own, "walls of the supervisor");
    Ok(Booted {
        config,
        sandbox,
        state,
        launcher,
        child,
        front,
        admin_socket,
        admin_file,
        admin_tcp,
        admin_users,
        manager,
    })
}

/// The configured sandbox policy, or the shipped one.
pub(crate) fn sandbox_policy(config: &Config) -> Result<SandboxPolicy, ServeError> {
    let policy = match &config.sandbox.policy {
        Some(path) => SandboxPolicy::load(path),
        None => SandboxPolicy::shipped(),
    };
    policy.map_err(|error| ServeError::step(exit::CONFIG, "sandbox policy", error))
}

/// The launcher's program.
pub(crate) fn runner_path(config: &Config) -> Result<PathBuf, ServeError> {
    if let Some(path) = &config.sandbox.runner {
        return Ok(path.clone());
    }
    let own = std::env::current_exe()
        .map_err(|error| ServeError::step(exit::WALLS, "finding sandbox-runner", error))?;
    Ok(own.with_file_name("sandbox-runner"))
}

fn state_error(error: StateError) -> ServeError {
    let fix = match &error {
        StateError::Unusable { .. } => "name another folder by `state` in cloister.toml, or mend this one",
        StateError::Locked { .. } => "one state folder, one supervisor",
        StateError::Blob(_) => "restore the state folder from a backup",
    };
    ServeError::step(exit::STATE, "state", error).fix(fix)
}

fn listen_error(key: &str, what: &str, error: &io::Error) -> ServeError {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("end what listens there (`ss -ltnp` shows it), or change {key} in cloister.toml")
        }
        _ => format!("change {key} in cloister.toml"),
    };
    ServeError::step(exit::LISTEN, what, error).fix(fix)
}

/// Binds the socket; its folder goes to the account when it was made here, so that the file can be
/// removed at the end.
fn admin_socket(path: &Path, account: &Account) -> Result<UnixListener, ServeError> {
    let failed =
        |error| listen_error("listen.admin_socket", &format!("admin socket {}", path.display()), &error);
    let folder = path.parent().filter(|folder| !folder.exists()).map(Path::to_owned);
    let listener = server::bind_unix(path).map_err(failed)?;
    if let Some(folder) = folder.filter(|_| account.from_root) {
        std::os::unix::fs::chown(&folder, Some(account.uid.as_raw()), Some(account.gid.as_raw()))
            .map_err(failed)?;
    }
    Ok(listener)
}

/// Without root walls are missing on most machines: all of them are found now and told at once, before
/// anything is served.
fn unprivileged(config: &Config, account: &Account) -> Result<(), ServeError> {
    let failed = |why: String| ServeError::step(exit::WALLS, "trying the walls", why);
    let missing = missing_walls(config).map_err(|error| failed(error.to_string()))?;
    if missing.is_empty() {
        tracing::info!(account = account.name, waived = ?config.sandbox.waive, "started without root");
        return Ok(());
    }
    let told: Vec<_> =
        missing.values().map(|failure| format!("\n  {failure}\n    fix: {}", failure.fix())).collect();
    let names: Vec<_> = config.sandbox.waive.iter().chain(missing.keys()).map(|wall| wall.name()).collect();
    let own = config.sandbox.waive_own.iter().map(|wall| wall.name());
    let names: Vec<_> = names.into_iter().chain(own).collect();
    let what = format!("started as {}, not as root", account.name);
    let why = format!("{} walls can't be raised:{}", missing.len(), told.concat());
    Err(ServeError::step(exit::WALLS, what, why)
        .fix(format!("start it as root, or do without them by name: sandbox.waive = {names:?}")))
}

/// The state folder may be the account's own and yet lie where it can't go.
fn reachable(state: &Path, account: &Account) -> Result<(), ServeError> {
    let probe = state.join("staging/.writable");
    let tried = std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe));
    tried.map_err(|error| {
        let what = format!("state folder {}", state.display());
        let why = format!("account {} can't write there: {error}", account.name);
        ServeError::step(exit::STATE, what, why)
            .fix("every folder above it must let the account pass (mode o+x), as below /var/lib")
    })
}
