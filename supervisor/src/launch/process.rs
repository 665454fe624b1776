//! A started Worker process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cloister_ipc::launch::{BlankId, ExitStatus, ToLauncher};
use nix::libc;
use nix::time::ClockId;
use tokio::sync::{mpsc, watch};

use super::kernel::Inspection;
use super::ready::Ready;
use super::{Net, Walls};

/// Longest wait for the launcher to look at a process.
const INSPECT_TIME: Duration = Duration::from_secs(10);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code or signal. A Worker is pid 1 of its namespace: its `abort()` shows as `SIGSEGV`.
    pub status: ExitStatus,
    /// Killed for its memory limit.
    pub oom_killed: bool,
    /// CPU time of the process and of the children it waited for.
    pub cpu: Duration,
    /// Most memory it used at a time, bytes; `None` when no cgroup told.
    pub memory_peak: Option<u64>,
}

impl Exit {
    /// The end of every process when the launcher dies: killed, nothing else known.
    pub(super) const LOST: Self =
        Self { status: ExitStatus::Signal(9), oom_killed: false, cpu: Duration::ZERO, memory_peak: None };
}

/// Kills a process unless it is over.
#[derive(Debug)]
pub(super) struct Killer {
    pub(super) blank: BlankId,
    pub(super) commands: mpsc::UnboundedSender<ToLauncher>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

impl Killer {
    fn kill(&self) {
        if self.exit.borrow().is_none() {
            // A closed channel means that the launcher is gone, and with it every process.
            let _ = self.commands.send(ToLauncher::Kill { blank: self.blank });
        }
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A started Worker process. Dropping it kills it, with all it forked.
#[derive(Debug)]
pub struct Process {
    pub(super) pid: i32,
    pub(super) clock: ClockId,
    pub(super) killer: Killer,
    pub(super) control: Option<OwnedFd>,
    pub(super) output: Option<(OwnedFd, OwnedFd)>,
    pub(super) net: Option<Net>,
    pub(super) walls: Arc<Walls>,
    /// What its cgroup's memory is at.
    pub(super) memory: Option<PathBuf>,
    pub(super) ready: Arc<Ready>,
}

impl Process {
    /// Host pid.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// CPU time used by the process so far (not its children), exact to the nanosecond. An error
    /// once it is over: then [`Exit::cpu`] tells.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        if self.killer.exit.borrow().is_some() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process is over"));
        }
        Ok(Duration::from(self.clock.now()?))
    }

    /// All memory that its cgroup is charged with now, bytes: of every process in it, of its files in `/tmp`, of what
    /// the kernel keeps for it. `None` without cgroups, or when it is over.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        std::fs::read_to_string(self.memory.as_ref()?).ok()?.trim().parse().ok()
    }

    /// Orders the whole process tree to be killed; [`exited`](Self::exited) tells when it is gone.
    pub fn kill(&self) {
        self.killer.kill();
    }

    /// Waits for the end. Any number of tasks may wait.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.killer.exit.clone();
        let known = exit.wait_for(Option::is_some).await;
        known.ok().and_then(|exit| *exit).unwrap_or(Exit::LOST)
    }

    /// How it ended, if it did.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        *self.killer.exit.borrow()
    }

    /// `ipc` contract: the supervisor's end of the control socket (`SOCK_SEQPACKET`, non-blocking,
    /// its receiving side shut down). Once.
    pub fn take_control(&mut self) -> Option<OwnedFd> {
        self.control.take()
    }

    /// Read ends of standard output and standard error (non-blocking). Once.
    pub fn take_output(&mut self) -> Option<(OwnedFd, OwnedFd)> {
        self.output.take()
    }

    /// `http` contract: sockets inside the Worker's network namespace.
    #[must_use]
    pub const fn net(&self) -> Option<&Net> {
        self.net.as_ref()
    }

    /// Has the launcher look at the live process and holds what the kernel says against what was
    /// promised at its start. `None` when it is over. Looks at the process itself, not at what it
    /// forked.
    pub async fn inspect(&self) -> Option<Inspection> {
        let view = self.ready.look(self.killer.blank)?;
        self.killer.commands.send(ToLauncher::Inspect { blank: self.killer.blank }).ok()?;
        match tokio::time::timeout(INSPECT_TIME, view).await {
            Ok(Ok(Ok(view))) => Some(Inspection::new(&self.walls, &view)),
            // The launcher forgets a process before it says so; its entries go even earlier.
            Ok(Ok(Err(libc::ESRCH | libc::ENOENT))) | Ok(Err(_)) => None,
            Ok(Ok(Err(errno))) => Some(Inspection::blind(&nix::errno::Errno::from_raw(errno).to_string())),
            Err(_) => Some(Inspection::blind(&format!("the launcher did not answer in {INSPECT_TIME:?}"))),
        }
    }

    /// What was really enforced.
    #[must_use]
    pub fn walls(&self) -> &Walls {
        &self.walls
    }

    /// The same, shared.
    #[must_use]
    pub fn walls_shared(&self) -> Arc<Walls> {
        Arc::clone(&self.walls)
    }
}
