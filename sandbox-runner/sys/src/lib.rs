//! Every unsafe system call wrapper of Cloister, and nothing else.
//!
//! Only what neither `nix` nor `rustix` offers safely. Each wrapper does one call, gives the
//! kernel's error back as it is, and says why the call is sound.

mod capabilities;
mod clone;
mod descriptors;
mod landlock;
mod loopback;
mod prctl;
mod process;
mod seccomp;
mod signals;
mod unsent;

pub use capabilities::{
    CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE, capabilities_left,
    drop_bounding, set_capabilities,
};
pub use clone::{Cloned, FreshChild, Namespaces, clone};
pub use descriptors::{Stdin, disown, keep, place};
pub use landlock::landlock_abi;
pub use loopback::loopback_up;
pub use prctl::{
    SECUREBITS_LOCKED, Speculation, clear_ambient, core_scheduling_cookie, core_scheduling_cookie_of,
    deny_write_execute, disable_speculation, dumpable, lock_securebits, no_new_privs, securebits,
    set_dumpable, set_no_new_privs, set_not_dumpable, set_parent_death_kill,
};
pub use process::{Reaped, exit, reap, wait_for};
pub use seccomp::install_filter;
pub use signals::{default_signals, unblock_signals};
pub use unsent::bound_unsent;

/// Turns the C convention into a result.
fn check(returned: libc::c_long) -> std::io::Result<libc::c_long> {
    if returned < 0 { Err(std::io::Error::last_os_error()) } else { Ok(returned) }
}
