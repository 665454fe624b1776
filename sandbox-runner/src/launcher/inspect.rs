//! What the kernel says of a live process, read for the supervisor and not judged.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use cloister_ipc::launch::{BlankId, KernelView, PROC_TEXT_BYTES};
use rustix::fs::{Mode, OFlags, fstat, openat};

use super::machine::Host;
use crate::walls;

/// Reads the kernel's view of the child `pid`, which was not reaped yet, so that its pid is no
/// other's.
pub(super) fn view(host: &Host, blank: BlankId, pid: i32, uid: u32) -> io::Result<KernelView> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(&host.proc, pid.to_string(), flags, Mode::empty())?;
    let own = openat(&host.proc, "self/ns", flags, Mode::empty())?;
    let (status, proc_owner) = read(folder.as_fd(), "status")?;
    if is_over(&status) {
        return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
    }
    let text = |name: &str| read(folder.as_fd(), name).map(|(text, _)| text);
    Ok(KernelView {
        status,
        limits: text("limits")?,
        mountinfo: text("mountinfo")?,
        cgroup: text("cgroup")?,
        namespaces: walls::namespace_ids(openat(&folder, "ns", flags, Mode::empty())?)?,
        launcher_namespaces: walls::namespace_ids(own)?,
        cgroup_folder: host.cgroups.folder(blank),
        cgroup_limits: host.cgroups.limits(blank)?,
        uid: host.identity.inside(uid),
        proc_owner,
        core_cookie: cloister_sys::core_scheduling_cookie_of(pid).ok(),
    })
}

/// Whether the process's first thread has ended. Others may go on, but nothing of the process can be looked at
/// any more, its namespaces neither.
fn is_over(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .is_some_and(|state| state.trim().starts_with(['Z', 'X']))
}

/// A whole text of the kernel's, and the file's owner.
fn read(folder: BorrowedFd<'_>, name: &str) -> io::Result<(String, u32)> {
    let too_long = || io::Error::from_raw_os_error(nix::libc::EFBIG);
    let file = openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let owner = fstat(&file)?.st_uid;
    let mut bytes = Vec::new();
    File::from(file).take(PROC_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.len() > PROC_TEXT_BYTES { Err(too_long()) } else { Ok((text, owner)) }
}
