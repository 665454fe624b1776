//! What the pool needs of a started process; the launcher's, or a test's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::launch;
use crate::registry::Deployed;

/// How a process ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// For people: exit code or signal.
    pub how: String,
    /// Killed for its memory limit.
    pub oom_killed: bool,
    /// CPU time of its whole life.
    pub cpu: Duration,
    /// Most memory it had, bytes.
    pub memory_peak: Option<u64>,
}

/// A started process.
pub trait Process: Send + Sync {
    /// Host pid.
    fn pid(&self) -> i32;
    /// CPU time used so far.
    ///
    /// # Errors
    /// It is over.
    fn cpu_time(&self) -> io::Result<Duration>;
    /// All memory that it is charged with now, bytes; `None` when nothing tells.
    fn memory(&self) -> Option<u64> {
        None
    }
    /// Orders it to be killed.
    fn kill(&self);
    /// Waits for its end; any number may wait.
    fn exited(&self) -> BoxFuture<'_, Ended>;
    /// A fresh TCP socket inside its network namespace.
    fn socket(&self) -> BoxFuture<'_, io::Result<OwnedFd>>;
    /// What was really enforced.
    fn walls(&self) -> serde_json::Value;
    /// What the kernel says of it now, held against [`walls`](Self::walls); `None` when it is over.
    fn inspect(&self) -> BoxFuture<'_, Option<launch::Inspection>>;
}

/// A process and the descriptors that came with it.
pub struct Started {
    /// The process.
    pub process: Arc<dyn Process>,
    /// `ipc`: the control socket.
    pub control: Option<OwnedFd>,
    /// Read ends of standard output and error.
    pub output: Option<(OwnedFd, OwnedFd)>,
    /// `http`: the socket that listens on the proxy port.
    pub proxy: Option<OwnedFd>,
}

/// Why a process did not start.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct StartFailed {
    /// For the Worker's owner and the operator.
    pub message: String,
    /// The Worker's own fault: another try can't help.
    pub permanent: bool,
}

/// Starts processes.
pub trait Start: Send + Sync {
    /// Starts a version.
    fn start<'a>(&'a self, deployed: &'a Arc<Deployed>) -> BoxFuture<'a, Result<Started, StartFailed>>;
}

impl Process for launch::Process {
    fn pid(&self) -> i32 {
        self.pid()
    }

    fn cpu_time(&self) -> io::Result<Duration> {
        self.cpu_time()
    }

    fn memory(&self) -> Option<u64> {
        self.memory()
    }

    fn kill(&self) {
        self.kill();
    }

    fn exited(&self) -> BoxFuture<'_, Ended> {
        Box::pin(async move {
            let exit = self.exited().await;
            Ended {
                how: format!("{:?}", exit.status),
                oom_killed: exit.oom_killed,
                cpu: exit.cpu,
                memory_peak: exit.memory_peak,
            }
        })
    }

    fn socket(&self) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async move {
            match self.net() {
                Some(net) => net.socket().await,
                None => Err(io::Error::other("the process was started without a network")),
            }
        })
    }

    fn walls(&self) -> serde_json::Value {
        serde_json::to_value(self.walls()).unwrap_or_default()
    }

    fn inspect(&self) -> BoxFuture<'_, Option<launch::Inspection>> {
        Box::pin(self.inspect())
    }
}

impl Start for launch::Launcher {
    fn start<'a>(&'a self, deployed: &'a Arc<Deployed>) -> BoxFuture<'a, Result<Started, StartFailed>> {
        Box::pin(async move {
            let mut process = self.start(deployed).await.map_err(|error| StartFailed {
                message: error.to_string(),
                permanent: error.is_workers_fault(),
            })?;
            let (control, output) = (process.take_control(), process.take_output());
            let proxy = process.net().and_then(launch::Net::take_proxy_listener);
            Ok(Started { process: Arc::new(process), control, output, proxy })
        })
    }
}
