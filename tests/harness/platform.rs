//! A running platform: a real supervisor, with real walls, in a folder of its own.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::net::UnixDatagram;

use crate::unprivileged::Unprivileged;
use crate::{Client, Config, Port, leftovers, program};

/// Host uids of one platform. Each has a range of its own, so that what is left of it can be told.
const UIDS: u32 = 512;

/// Longest wait for a start or an end. A bound for a failing test, not something to wait for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running platform. Dropping it ends the supervisor and checks that nothing of it is left.
#[derive(Debug)]
pub struct Platform {
    folder: TempDir,
    config: Config,
    port: Port,
    uid_base: u32,
    supervisor: Option<Child>,
    /// Where the supervisor tells how it is.
    notify: Option<UnixDatagram>,
    /// Started as an ordinary uid, the first of its range, with programs that it can reach.
    unprivileged: Option<Unprivileged>,
}

impl Platform {
    /// Starts one with defaults.
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    /// Starts one; `config` wins over the harness's own keys.
    pub async fn with(config: Config) -> Self {
        let mut platform = Self::prepare(config);
        platform.run().await;
        platform
    }

    /// Writes configuration and folders, starts nothing.
    #[must_use]
    pub fn prepare(config: Config) -> Self {
        Self::prepare_on(config, Port::reserve())
    }

    /// As [`Platform::prepare`], with the front door on this port.
    #[must_use]
    pub fn prepare_on(config: Config, port: Port) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "run the tests as root: the walls can't be raised otherwise"
        );
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // 32,768 pids at a time × 32 platforms in each; from 10 million on there are no accounts.
        let slot = std::process::id() % 32_768 * 32 + COUNT.fetch_add(1, Ordering::Relaxed) % 32;
        let platform = Self {
            folder: tempfile::Builder::new().prefix("cloister-test-").tempdir().expect("a temporary folder"),
            config,
            port,
            uid_base: 10_000_000 + slot * UIDS,
            supervisor: None,
            notify: None,
            unprivileged: None,
        };
        // The supervisor's own account must be able to reach its state.
        std::fs::set_permissions(platform.folder.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        std::fs::create_dir(platform.policy_folder()).expect("a folder for policies");
        platform.write_config();
        platform
    }

    /// As [`Platform::prepare`], to be started as an ordinary uid that no account has; with
    /// `delegated` cgroups, in folders of its own in each hierarchy.
    #[must_use]
    pub fn prepare_unprivileged(config: Config, delegated: bool) -> Self {
        let mut platform = Self::prepare(config);
        let uid = platform.uid_base;
        std::os::unix::fs::chown(platform.folder.path(), Some(uid), Some(uid)).expect("chown");
        platform.unprivileged = Some(Unprivileged::new(platform.folder.path(), uid, delegated));
        platform.write_config();
        platform
    }

    fn write_config(&self) {
        let quoted = |path: &Path| format!("{:?}", path.to_str().expect("a path that is text"));
        let mut full = Config::default()
            .set("", "state", quoted(&self.state()))
            .set("listen", "http", format!("[\"127.0.0.1:{}\"]", self.port.number))
            .set("listen", "admin_socket", quoted(&self.admin_socket()))
            .set("sandbox", "runner", quoted(&self.program("sandbox-runner")))
            .set("sandbox", "uid_base", self.uid_base.to_string())
            .set("sandbox", "uid_count", UIDS.to_string())
            .set("egress", "policy_dir", quoted(&self.policy_folder()));
        full.overlay(&self.config);
        std::fs::write(self.config_file(), full.text()).expect("writing the configuration");
    }

    /// Starts the supervisor and waits until it says that it is ready (`READY=1`, as to systemd).
    ///
    /// # Panics
    /// When it ends instead, with its log.
    pub async fn run(&mut self) {
        if let Err(status) = self.try_run().await {
            panic!("the supervisor ended with {status}:\n{}", self.log());
        }
    }

    /// As [`Platform::run`], for a start that may fail: the supervisor's exit status then.
    pub async fn try_run(&mut self) -> Result<(), ExitStatus> {
        assert!(self.supervisor.is_none(), "it runs already");
        let notify = self.folder.path().join("notify.sock");
        // From the run before, if any.
        let _old = std::fs::remove_file(&notify);
        let ready = UnixDatagram::bind(&notify).expect("a socket to be told of readiness");
        std::fs::set_permissions(&notify, PermissionsExt::from_mode(0o777)).expect("chmod");
        let mut command = match &self.unprivileged {
            Some(unprivileged) => unprivileged.command(),
            None => self.command([]),
        };
        command.args(["serve", "--config"]).env("NO_COLOR", "1");
        // A group of its own: Ctrl-C is for who started it, which then ends it in order.
        command.arg(self.config_file()).env("NOTIFY_SOCKET", &notify).stdin(Stdio::null()).process_group(0);
        let mut child =
            command.stdout(self.open_log()).stderr(self.open_log()).spawn().expect("starting cloister");
        let end = Instant::now() + PATIENCE;
        let mut message = [0; 4096];
        loop {
            // Short waits, to see a supervisor that ended without a word.
            let heard = tokio::time::timeout(Duration::from_millis(20), ready.recv(&mut message)).await;
            if let Ok(Ok(length)) = heard
                && message
                    .get(..length)
                    .unwrap_or_default()
                    .split(|byte| *byte == b'\n')
                    .any(|line| line == b"READY=1")
            {
                self.supervisor = Some(child);
                self.notify = Some(ready);
                return Ok(());
            }
            if let Some(status) = child.try_wait().expect("waiting for the supervisor") {
                return Err(status);
            }
            if Instant::now() > end {
                // Ours, and of no use any more.
                let _ended = child.kill();
                panic!("the supervisor was not ready within {PATIENCE:?}:\n{}", self.log());
            }
        }
    }

    fn program(&self, name: &str) -> PathBuf {
        self.unprivileged.as_ref().map_or_else(|| program(name), |unprivileged| unprivileged.program(name))
    }

    /// `cloister` with these arguments and the tests' environment, not started.
    pub fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(program("cloister"));
        command.args(arguments).env("CLOISTER_SOCKET", self.admin_socket()).env("NO_COLOR", "1");
        command
    }

    fn open_log(&self) -> File {
        File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log file")
    }

    /// All that the supervisor has said.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A folder of the test's own; goes with the platform.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("cloister.toml")
    }

    /// The admin API's Unix socket.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("run/admin.sock")
    }

    /// The egress policies' folder.
    #[must_use]
    pub fn policy_folder(&self) -> PathBuf {
        self.folder.path().join("egress")
    }

    /// Address of the front door.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port.number))
    }

    /// A client of the front door.
    #[must_use]
    pub fn http(&self) -> Client {
        Client::Tcp(self.address())
    }

    /// A client of the admin API.
    #[must_use]
    pub fn admin(&self) -> Client {
        Client::Unix(self.admin_socket())
    }

    /// The supervisor's pid.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.supervisor.as_ref().expect("it runs").id()).expect("a pid")
    }

    /// Every Worker and blank that is alive: pid and `argv[0]`, which for a Worker is its name.
    #[must_use]
    pub fn workers(&self) -> Vec<(i32, String)> {
        leftovers::processes(self.uid_base, UIDS)
    }

    /// Pids of the live processes of the Workers of this name.
    #[must_use]
    pub fn workers_named(&self, name: &str) -> Vec<i32> {
        self.workers().into_iter().filter(|(_, is)| is == name).map(|(pid, _)| pid).collect()
    }

    /// Pid of the launcher, the supervisor's child.
    #[must_use]
    pub fn launcher(&self) -> i32 {
        *leftovers::descendants(self.pid()).first().expect("the supervisor has a child")
    }

    /// Resident memory of the supervisor, bytes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib << 10
    }

    /// Waits until the supervisor has ended by itself.
    ///
    /// # Panics
    /// When it takes longer, or when a process outlives it.
    pub fn ended(&mut self, patience: Duration) -> ExitStatus {
        self.wait(patience, "by itself", &[])
    }

    /// Kills the supervisor without warning (`SIGKILL`) and waits until every process of it is gone.
    ///
    /// # Panics
    /// When a process outlives it for more than 10 s.
    pub fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Asks the supervisor to end (`SIGTERM`) and waits until every process of it is gone.
    pub fn stop(&mut self) -> ExitStatus {
        self.end(Signal::SIGTERM)
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = self.pid();
        let family = leftovers::descendants(pid);
        kill(Pid::from_raw(pid), signal).expect("signalling the supervisor");
        let status = self.wait(PATIENCE, signal.as_str(), &family);
        let launcher = family.first().copied();
        let look = || launcher.map(leftovers::cgroups).unwrap_or_default();
        let folders = leftovers::until_none(Duration::from_secs(10), look);
        assert!(folders.is_empty(), "cgroup folders outlive the launcher: {folders:?}\n{}", self.log());
        status
    }

    /// Waits for the supervisor's end, then for the end of all its processes.
    fn wait(&mut self, patience: Duration, why: &str, family: &[i32]) -> ExitStatus {
        let mut supervisor = self.supervisor.take().expect("it runs");
        let end = Instant::now() + patience;
        let status = loop {
            match supervisor.try_wait().expect("waiting for the supervisor") {
                Some(status) => break status,
                None if Instant::now() > end => {
                    let _ended = supervisor.kill();
                    panic!("the supervisor did not end ({why}) within {patience:?}:\n{}", self.log());
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let left = leftovers::until_none(Duration::from_secs(10), || {
            let mut left = leftovers::processes(self.uid_base, UIDS);
            left.extend(
                family.iter().filter(|pid| alive(**pid)).map(|pid| (*pid, "of the supervisor".to_owned())),
            );
            left
        });
        assert!(left.is_empty(), "processes outlive the supervisor: {left:?}\n{}", self.log());
        status
    }
}

/// Whether a process is there and not just a zombie that nobody reaped yet.
fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}

impl Drop for Platform {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            let log = self.log();
            let tail = log.len().saturating_sub(8192);
            eprintln!("---- the supervisor's log ----\n{}\n----", log.get(tail..).unwrap_or(&log));
        }
        if self.supervisor.is_none() {
            return;
        }
        if failing {
            // Panicking here would hide the first failure.
            if let Some(mut supervisor) = self.supervisor.take() {
                let _ended = supervisor.kill();
                let _status = supervisor.wait();
            }
        } else {
            self.stop();
        }
    }
}
