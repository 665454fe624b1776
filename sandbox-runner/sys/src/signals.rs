//! Signals of a fresh child.

use std::io;

use crate::FreshChild;

/// Every signal is unblocked and does what it does by default: exec would pass a blocked or ignored
/// one on.
pub fn reset_signals(_child: &FreshChild) -> io::Result<()> {
    // Handlers were reset by the clone; ignored ones were not. Rust's start-up ignores SIGPIPE.
    for signal in [libc::SIGPIPE, libc::SIGINT, libc::SIGHUP, libc::SIGTERM, libc::SIGCHLD] {
        // SAFETY: no handler is installed, only the default restored.
        if unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: sigset_t is integers, for which all zeros is a value.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives both calls; no old set is asked for.
    let returned = unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    super::check(returned.into()).map(drop)
}
