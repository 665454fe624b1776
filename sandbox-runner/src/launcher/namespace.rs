//! Sockets in a living Worker's network namespace.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cloister_ipc::launch::SOCKETS;
use nix::sched::{CloneFlags, setns};
use rustix::fs::{Mode, OFlags, openat};

use super::machine::Host;
use crate::walls::tcp;

/// Makes `count` TCP sockets in the network namespace of the child `pid`. The launcher keeps none
/// of them, nor the namespace: either would keep it alive.
pub(super) fn sockets(host: &Host, pid: i32, count: u8) -> io::Result<Vec<OwnedFd>> {
    let path = format!("{pid}/ns/net");
    let namespace = openat(host.proc.as_fd(), path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    setns(&namespace, CloneFlags::CLONE_NEWNET)?;
    let sockets: rustix::io::Result<Vec<OwnedFd>> = (0..count.min(SOCKETS)).map(|_| tcp()).collect();
    if let Err(error) = setns(&host.network, CloneFlags::CLONE_NEWNET) {
        // To go on in a Worker's network would be worse than to end.
        eprintln!("sandbox-runner: can't return to its own network namespace: {error}");
        cloister_sys::exit(1);
    }
    Ok(sockets?)
}
