//! The kernel's own view of a live process.

use serde::{Deserialize, Serialize};

use super::CgroupLimit;

/// Longest text of one file below `/proc/PID`, bytes.
pub const PROC_TEXT_BYTES: usize = 16 * 1024;

/// The namespaces that are looked at, by their names in `/proc/PID/ns`.
pub const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];

/// What the kernel says of a live process, as the launcher read it and otherwise as it is: the
/// launcher parses none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct KernelView {
    /// `/proc/PID/status`, at most [`PROC_TEXT_BYTES`], as the three texts after it. Bytes that are
    /// not UTF-8 (a process may give itself such a name) are replaced.
    pub status: String,
    /// `/proc/PID/limits`.
    pub limits: String,
    /// `/proc/PID/mountinfo`.
    pub mountinfo: String,
    /// `/proc/PID/cgroup`.
    pub cgroup: String,
    /// Inode numbers of its namespaces, in the order of [`NAMESPACES`].
    pub namespaces: Vec<u64>,
    /// The launcher's own, in the same order.
    pub launcher_namespaces: Vec<u64>,
    /// The folder that the launcher made for it, relative to the launcher's cgroup; `None` without.
    pub cgroup_folder: Option<String>,
    /// What the files of that folder say.
    pub cgroup_limits: Vec<CgroupLimit>,
    /// The uid it was given, as the launcher's user namespace (and so `status`) numbers it.
    pub uid: u32,
    /// Owner of `/proc/PID/status`: not its uid when it is not dumpable.
    pub proc_owner: u32,
    /// Its core-scheduling cookie; `None` when the kernel has none to tell, 0 for no cookie.
    pub core_cookie: Option<u64>,
}
