//! cgroup limits: a fresh folder for each process, on v2 or on v1 and hybrid hosts.
//!
//! Everything is made below the launcher's own cgroup, so whatever bounds the launcher bounds its
//! Workers too: `<own>/cloister-launchers/cloister.<pid>.<start time>.<pid namespace>/<blank>`. A folder is never used twice: on v2 a
//! child put into one that was once killed dies at once.

mod detect;
mod files;
mod leftovers;
mod v1;
mod v2;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use cloister_ipc::launch::{BlankId, CgroupLimit, CgroupMode, CgroupSpec, Failure};

/// The host's cgroups as they are used.
#[derive(Debug)]
pub(crate) enum Cgroups {
    /// v2.
    V2(v2::V2),
    /// v1, a hierarchy per controller.
    V1(v1::V1),
    /// Waived.
    None,
}

/// How a child gets into its cgroup.
#[derive(Debug)]
pub(crate) enum Entry {
    /// By the clone itself, into this folder.
    Clone(OwnedFd),
    /// It writes itself into these files.
    Write(Vec<File>),
}

/// What a cgroup tells of a process that is over.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Story {
    pub(crate) oom_killed: bool,
    pub(crate) memory_peak: Option<u64>,
}

impl Cgroups {
    /// Finds the hierarchies, makes the launcher's own folder and removes those of launchers that
    /// died. `proc` is the host's `/proc`.
    pub(crate) fn prepare(proc: BorrowedFd<'_>, waived: bool) -> Result<Self, Failure> {
        match detect::detect(proc) {
            Ok(cgroups) => {
                // A host with strange mounts is no reason not to start: folders may stay then.
                if let Err(error) = leftovers::clean_everywhere(proc) {
                    eprintln!("sandbox-runner: folders of dead launchers may be left: {error}");
                }
                Ok(cgroups)
            }
            Err(_) if waived => Ok(Self::None),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) const fn mode(&self) -> CgroupMode {
        match self {
            Self::V2(_) => CgroupMode::V2,
            Self::V1(_) => CgroupMode::V1,
            Self::None => CgroupMode::None,
        }
    }

    /// Makes the folder of `blank` with its limits, which are given back as the kernel tells them.
    pub(crate) fn make(
        &self,
        blank: BlankId,
        spec: &CgroupSpec,
    ) -> Result<(Entry, Vec<CgroupLimit>), Failure> {
        match self {
            Self::V2(v2) => v2.make(blank, spec).map(|(folder, limits)| (Entry::Clone(folder), limits)),
            Self::V1(v1) => v1.make(blank, spec).map(|(files, limits)| (Entry::Write(files), limits)),
            Self::None => Ok((Entry::Write(Vec::new()), Vec::new())),
        }
    }

    /// The limits of `blank` as they are now.
    pub(crate) fn limits(&self, blank: BlankId) -> io::Result<Vec<CgroupLimit>> {
        match self {
            Self::V2(v2) => v2.limits(blank),
            Self::V1(v1) => v1.limits(blank),
            Self::None => Ok(Vec::new()),
        }
    }

    /// The folder with a folder for each, in the hierarchy of the memory controller.
    pub(crate) fn memory_folder(&self) -> Option<&str> {
        match self {
            Self::V2(v2) => Some(v2.path()),
            Self::V1(v1) => v1.memory_path(),
            Self::None => None,
        }
    }

    /// The folder of `blank` below the launcher's cgroup (of each hierarchy); `None` when waived.
    pub(crate) fn folder(&self, blank: BlankId) -> Option<String> {
        let name = match self {
            Self::V2(v2) => v2.name(),
            Self::V1(v1) => v1.name(),
            Self::None => return None,
        };
        Some(format!("{}/{name}/{blank}", leftovers::SHARED))
    }

    /// What happened in there. Before [`remove`](Self::remove).
    pub(crate) fn story(&self, blank: BlankId) -> Story {
        match self {
            Self::V2(v2) => v2.story(blank),
            Self::V1(v1) => v1.story(blank),
            Self::None => Story::default(),
        }
    }

    /// Has the kernel let go of what is charged to `blank`, whose processes are over: cached pages. Takes milliseconds.
    pub(crate) fn empty(&self, blank: BlankId) {
        match self {
            Self::V2(v2) => v2.empty(blank),
            Self::V1(v1) => v1.empty(blank),
            Self::None => {}
        }
    }

    /// Removes the folder of `blank`; false when it is still busy, to be tried again soon.
    pub(crate) fn remove(&self, blank: BlankId) -> bool {
        match self {
            Self::V2(v2) => v2.remove(blank),
            Self::V1(v1) => v1.remove(blank),
            Self::None => true,
        }
    }

    /// Removes the launcher's own folder, at its end.
    ///
    /// # Errors
    /// The folder that stays, and why.
    pub(crate) fn close(&self) -> io::Result<()> {
        match self {
            Self::V2(v2) => v2.close(),
            Self::V1(v1) => v1.close(),
            Self::None => Ok(()),
        }
    }
}

impl Entry {
    /// The folder for the clone.
    pub(crate) fn folder(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        match self {
            Self::Clone(folder) => Some(folder.as_fd()),
            Self::Write(_) => None,
        }
    }
}
