//! The kernel's own view of a live process, taken apart and held against what was promised.

mod compare;
mod parse;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use cloister_ipc::launch::{CgroupLimit, KernelView, MountEnforced, NAMESPACES};
use serde::Serialize;

use super::Walls;

/// Walls that the kernel tells nobody else about: only their own promise stands for them.
const NOT_SHOWN: [&str; 4] = ["landlock", "memory-deny-write-execute", "securebits", "descriptors"];

/// What the kernel says of a live process. A text that it did not say is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Fields of `/proc/PID/status` that tell of walls, white space made single.
    pub status: BTreeMap<String, String>,
    /// Inode numbers of its namespaces.
    pub namespaces: BTreeMap<String, u64>,
    /// Every mount it sees, options of the mount and of the file system together.
    pub mounts: Vec<MountEnforced>,
    /// Hard resource limits by the kernel's names; `None` is unlimited.
    pub limits: BTreeMap<String, Option<u64>>,
    /// Its cgroups: controllers (`v2` for the unified hierarchy) and path.
    pub cgroups: BTreeMap<String, String>,
    /// What the files of the folder that was made for it say.
    pub cgroup_limits: Vec<CgroupLimit>,
    /// Owner of its entries in `/proc`, as the launcher sees it; not its uid unless it is dumpable.
    pub proc_owner: u32,
    /// Its core-scheduling cookie; `None` when this kernel has none.
    pub core_cookie: Option<u64>,
    /// Walls that the kernel tells nobody about.
    pub not_shown: [&'static str; 4],
}

impl Kernel {
    fn new(view: &KernelView) -> Self {
        let names = NAMESPACES.iter().map(|name| (*name).to_owned());
        Self {
            status: parse::status(&view.status),
            namespaces: names.zip(view.namespaces.iter().copied()).collect(),
            mounts: parse::mounts(&view.mountinfo),
            limits: parse::limits(&view.limits),
            cgroups: parse::cgroups(&view.cgroup),
            cgroup_limits: view.cgroup_limits.clone(),
            proc_owner: view.proc_owner,
            core_cookie: view.core_cookie,
            not_shown: NOT_SHOWN,
        }
    }
}

/// A live process looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// What the kernel says; `None` when it could not be asked.
    pub kernel: Option<Kernel>,
    /// Where that is not what was promised: a sentence each, with the wall, what was promised and
    /// what was seen. Empty when all agree.
    pub disagreements: Vec<String>,
}

impl Inspection {
    /// Holds the kernel's view against what the process was started with.
    pub(super) fn new(walls: &Walls, view: &KernelView) -> Self {
        let kernel = Kernel::new(view);
        let disagreements = compare::disagreements(walls, view, &kernel);
        Self { kernel: Some(kernel), disagreements }
    }

    /// The kernel could not be asked although the process lives.
    pub(super) fn blind(why: &str) -> Self {
        let sentence = format!("every wall: promised to be shown by the kernel, seen nothing: {why}");
        Self { kernel: None, disagreements: vec![sentence] }
    }
}
