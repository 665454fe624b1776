//! Starts the Worker as a plain child.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloister_supervisor::launch::Inspection;
use cloister_supervisor::pool::{Ended, Process, Start, StartFailed, Started};
use cloister_supervisor::registry::Deployed;
use futures_util::future::BoxFuture;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// See the module.
pub(crate) struct Unwalled;

impl Start for Unwalled {
    fn start<'a>(&'a self, deployed: &'a Arc<Deployed>) -> BoxFuture<'a, Result<Started, StartFailed>> {
        Box::pin(async move {
            start(deployed).map_err(|error| StartFailed { message: format!("{error}"), permanent: true })
        })
    }
}

fn start(deployed: &Deployed) -> io::Result<Started> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The SDK takes no standard descriptor for its control socket.
    let child = Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec \"$0\""])
        .arg(&deployed.binary)
        .env("CLOISTER_CONTROL_FD", "3")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
    let process = Plain { child: Mutex::new(child), pid, clock };
    Ok(Started { process: Arc::new(process), control: Some(ours), output: None, proxy: None })
}

struct Plain {
    child: Mutex<Child>,
    pid: i32,
    clock: ClockId,
}

impl Process for Plain {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn cpu_time(&self) -> io::Result<Duration> {
        let time = clock_gettime(self.clock)?;
        Ok(Duration::from_nanos(u64::try_from(time.num_nanoseconds()).unwrap_or_default()))
    }

    fn kill(&self) {
        drop(self.child.lock().unwrap_or_else(PoisonError::into_inner).kill());
    }

    fn exited(&self) -> BoxFuture<'_, Ended> {
        // It lives as long as the bench, whose end it notices by its control socket.
        Box::pin(std::future::pending())
    }

    fn socket(&self) -> BoxFuture<'_, io::Result<OwnedFd>> {
        Box::pin(async { Err(io::Error::other("an SDK Worker has no network")) })
    }

    fn walls(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn inspect(&self) -> BoxFuture<'_, Option<Inspection>> {
        Box::pin(async { None }) // there are no walls to look at
    }
}
