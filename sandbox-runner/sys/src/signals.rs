//! Signals. Exec passes ignored and blocked ones on, so a Worker must not get any.

use std::io;

use crate::FreshChild;

/// Highest signal number.
const LAST: libc::c_int = 64;

/// The kernel's `struct sigaction` (linux/signal.h).
#[repr(C)]
struct Action {
    handler: usize,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Every signal does what it does by default, also those that the C library keeps to itself and
/// those that whoever started this process ignored. For a process of one thread without handlers.
pub fn default_signals() -> io::Result<()> {
    let action = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    for signal in 1..=LAST {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the structure is the kernel's own and outlives the call; no handler is installed,
        // only the default restored. The last argument is the size of its mask.
        let returned = unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const action,
                std::ptr::null_mut::<libc::c_void>(),
                size_of::<u64>(),
            )
        };
        super::check(returned)?;
    }
    Ok(())
}

/// No signal is blocked.
pub fn unblock_signals(_child: &FreshChild) -> io::Result<()> {
    // SAFETY: sigset_t is integers, for which all zeros is a value, the empty set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set outlives the call; no old set is asked for.
    let returned = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
    super::check(returned.into()).map(drop)
}
