//! clone3(2).

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Which namespaces a child gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// user, pid, mount, net, ipc, uts. (The cgroup namespace is unshared by the child once it is in
    /// its cgroup: made here, its root would be the parent's.)
    All,
    /// None: a helper of the caller's own.
    None,
    /// Only pid, for a helper that mounts a process file system.
    Pid,
}

/// Who returns from [`clone`].
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child(FreshChild),
    /// The caller; the child's pid.
    Parent(i32),
}

/// Proof to be a process fresh from [`clone`], which still has its parent's memory and descriptors
/// and uses none of the parent's objects. Neither `Send` nor `Clone`.
#[derive(Debug)]
pub struct FreshChild(PhantomData<*const ()>);

const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks into new namespaces, and into `cgroup` (a v2 folder) when given. The child is a copy, as
/// after fork(2), its handled signals are reset to default.
///
/// # Errors
/// The kernel's, and `EDEADLK` when the process has several threads: a copy of such a process can't
/// even allocate.
pub fn clone(namespaces: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    if !single_threaded() {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let flags = match namespaces {
        Namespaces::All => {
            libc::CLONE_NEWUSER
                | libc::CLONE_NEWPID
                | libc::CLONE_NEWNS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
        }
        Namespaces::None => 0,
        Namespaces::Pid => libc::CLONE_NEWPID,
    };
    // SAFETY: clone_args is plain integers, for which all zeros is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(flags.cast_unsigned()) | CLONE_CLEAR_SIGHAND;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: the structure outlives the call and its size is told; without CLONE_VM and without a
    // stack the child goes on with a copy of this one. There is one thread (checked above), so no
    // lock is held by a thread that the child lacks.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match super::check(returned)? {
        0 => Ok(Cloned::Child(FreshChild(PhantomData))),
        pid => i32::try_from(pid).map(Cloned::Parent).map_err(io::Error::other),
    }
}

/// Whether this process has one thread: unshare(CLONE_SIGHAND... ) is refused otherwise, and asks
/// for nothing when there is only one.
fn single_threaded() -> bool {
    // SAFETY: no memory is passed. With one thread CLONE_THREAD does nothing (unshare(2)).
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}
