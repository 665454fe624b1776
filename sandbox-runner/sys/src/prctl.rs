//! prctl(2), one function an operation.

use std::io;

/// All secure bits and their locks but keep-caps, which exec clears (capabilities(7)).
pub const SECUREBITS_LOCKED: u32 = 0b1110_1111;

// These two libc has for x86_64 only.
const PR_GET_SPECULATION_CTRL: libc::c_int = 52;
const PR_SET_SPECULATION_CTRL: libc::c_int = 53;
const PR_SET_MDWE: libc::c_int = 65;
const PR_MDWE_REFUSE_EXEC_GAIN: libc::c_ulong = 1;
const PR_SPEC_FORCE_DISABLE: libc::c_ulong = 1 << 3;
const PR_SPEC_DISABLE: libc::c_ulong = 1 << 2;
const PR_SCHED_CORE: libc::c_int = 62;
const PR_SCHED_CORE_GET: libc::c_ulong = 0;
const PR_SCHED_CORE_CREATE: libc::c_ulong = 1;
const PIDTYPE_PID: libc::c_ulong = 0;
const PIDTYPE_TGID: libc::c_ulong = 1;

fn prctl(
    operation: libc::c_int,
    a: libc::c_ulong,
    b: libc::c_ulong,
    c: libc::c_ulong,
    d: libc::c_ulong,
) -> io::Result<libc::c_int> {
    // SAFETY: private, and only called with operations that take integers, never memory.
    let returned = unsafe { libc::prctl(operation, a, b, c, d) };
    super::check(returned.into())?;
    Ok(returned)
}

/// The kernel kills this process when its parent dies. Lost when ids change: set again then.
pub fn set_parent_death_kill() -> io::Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::c_ulong::from(libc::SIGKILL.cast_unsigned()), 0, 0, 0).map(drop)
}

/// Nobody but root may trace this process or read its memory.
pub fn set_not_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0).map(drop)
}

/// Its entries in `/proc` belong to its own uid, not to root. For a launcher that is not root, while
/// it writes the id maps of a child: the child's are what the launcher's were at the clone.
pub fn set_dumpable() -> io::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0).map(drop)
}

/// `PR_GET_DUMPABLE`.
pub fn dumpable() -> io::Result<i32> {
    prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0)
}

/// exec can't give privileges any more.
pub fn set_no_new_privs() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).map(drop)
}

/// Whether exec can't give privileges.
pub fn no_new_privs() -> io::Result<bool> {
    prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0).map(|set| set == 1)
}

/// uid 0 is nothing special any more, for ever. Needs `CAP_SETPCAP`.
pub fn lock_securebits() -> io::Result<()> {
    prctl(libc::PR_SET_SECUREBITS, SECUREBITS_LOCKED.into(), 0, 0, 0).map(drop)
}

/// `PR_GET_SECUREBITS`.
pub fn securebits() -> io::Result<u32> {
    prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0).map(libc::c_int::cast_unsigned)
}

/// Clears the ambient capabilities.
pub fn clear_ambient() -> io::Result<()> {
    let clear = libc::c_ulong::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned());
    prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0).map(drop)
}

/// No mapping becomes executable that was not made so; inherited by exec (Linux 6.3).
pub fn deny_write_execute() -> io::Result<()> {
    prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0).map(drop)
}

/// A speculation that can be disabled for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// Speculative store bypass (Spectre v4).
    StoreBypass,
    /// Indirect branches (Spectre v2).
    IndirectBranch,
    /// L1 data cache flush on leaving.
    L1dFlush,
}

/// Disables a speculation for good. (The L1D flush is switched on, which the kernel calls enable.)
///
/// # Errors
/// `ENODEV`, `ENXIO` or `EPERM` when the machine or its kernel has no such control.
pub fn disable_speculation(what: Speculation) -> io::Result<()> {
    const ENABLE: libc::c_ulong = 1 << 1;
    let (which, how) = match what {
        Speculation::StoreBypass => (0, PR_SPEC_FORCE_DISABLE),
        Speculation::IndirectBranch => (1, PR_SPEC_FORCE_DISABLE),
        Speculation::L1dFlush => (2, ENABLE),
    };
    let done = prctl(PR_SET_SPECULATION_CTRL, which, how, 0, 0).map(drop);
    match done {
        // Not controllable because it is off anyway, for everybody: as good.
        Err(error) => match prctl(PR_GET_SPECULATION_CTRL, which, 0, 0, 0) {
            Ok(state)
                if libc::c_ulong::from(state.cast_unsigned())
                    & !1
                    & (PR_SPEC_DISABLE | PR_SPEC_FORCE_DISABLE)
                    != 0
                    && !matches!(what, Speculation::L1dFlush) =>
            {
                Ok(())
            }
            _ => Err(error),
        },
        ok => ok,
    }
}

/// Gives this process a core-scheduling cookie of its own: no other shares a core with it.
///
/// # Errors
/// `EINVAL` when the kernel was built without, `ENODEV` when there is no hyper-threading.
pub fn core_scheduling_cookie() -> io::Result<()> {
    prctl(PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, PIDTYPE_TGID, 0).map(drop)
}

/// The core-scheduling cookie of the thread `pid`; 0 when it has none. Needs the right to trace it.
///
/// # Errors
/// `EINVAL` when the kernel was built without, `ESRCH`, `EPERM`.
pub fn core_scheduling_cookie_of(pid: libc::pid_t) -> io::Result<u64> {
    let mut cookie = 0u64;
    let pid = libc::c_ulong::from(pid.cast_unsigned());
    // SAFETY: this operation writes one u64 to its last argument, which outlives the call.
    let returned =
        unsafe { libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, pid, PIDTYPE_PID, &raw mut cookie) };
    super::check(returned.into())?;
    Ok(cookie)
}
