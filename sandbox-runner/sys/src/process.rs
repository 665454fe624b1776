//! Ends of processes.

use std::io;
use std::time::Duration;

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Its pid, free again.
    pub pid: i32,
    /// Its exit code, or the signal that ended it.
    pub status: Result<i32, i32>,
    /// CPU time of it and of the children it waited for.
    pub cpu: Duration,
}

/// Takes one child that ended; `None` when there is none at the moment, or no child at all.
pub fn reap() -> io::Result<Option<Reaped>> {
    wait(-1, libc::WNOHANG)
}

/// Waits for one child.
pub fn wait_for(pid: i32) -> io::Result<Option<Reaped>> {
    wait(pid, 0)
}

fn wait(pid: i32, options: libc::c_int) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    // SAFETY: rusage is integers, for which all zeros is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both results outlive the call.
    let returned = unsafe { libc::wait4(pid, &raw mut status, options, &raw mut usage) };
    match super::check(returned.into()) {
        Ok(0) => return Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let time = |t: libc::timeval| {
        let micros = u32::try_from(t.tv_usec).unwrap_or(0);
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), micros.saturating_mul(1000))
    };
    let ended =
        if libc::WIFSIGNALED(status) { Err(libc::WTERMSIG(status)) } else { Ok(libc::WEXITSTATUS(status)) };
    Ok(Some(Reaped { pid: returned, status: ended, cpu: time(usage.ru_utime) + time(usage.ru_stime) }))
}

/// Ends this process at once: no destructor, no exit handler of the parent it was copied from.
pub fn exit(code: i32) -> ! {
    // SAFETY: takes no memory and does not return.
    unsafe { libc::_exit(code) }
}
