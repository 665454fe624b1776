//! Walls by name, and what is said when one can't be raised.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A wall, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// User, pid, mount, net, ipc, uts and cgroup namespaces.
    Namespaces,
    /// A host uid of its own.
    OwnUid,
    /// The empty root.
    Root,
    /// Loopback only.
    Network,
    /// Landlock: files, and what may be executed.
    Landlock,
    /// Landlock's rules for TCP ports, a second wall behind the network namespace (ABI 4).
    LandlockTcp,
    /// Landlock's scopes for signals and abstract sockets, a second wall behind the pid and network
    /// namespaces (ABI 6).
    LandlockScopes,
    /// System call filters.
    Seccomp,
    /// No capabilities, no_new_privs, securebits, not dumpable.
    Privilege,
    /// No memory both writable and executable.
    MemoryDenyWriteExecute,
    /// Speculation controls.
    Speculation,
    /// A core-scheduling cookie.
    CoreScheduling,
    /// Nothing open but what is given.
    Descriptors,
    /// cgroup limits.
    Cgroup,
    /// Resource limits.
    Rlimits,
}

impl Wall {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Namespaces,
        Self::OwnUid,
        Self::Root,
        Self::Network,
        Self::Landlock,
        Self::LandlockTcp,
        Self::LandlockScopes,
        Self::Seccomp,
        Self::Privilege,
        Self::MemoryDenyWriteExecute,
        Self::Speculation,
        Self::CoreScheduling,
        Self::Descriptors,
        Self::Cgroup,
        Self::Rlimits,
    ];

    /// The name used in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::OwnUid => "own-uid",
            Self::Root => "root",
            Self::Network => "network",
            Self::Landlock => "landlock",
            Self::LandlockTcp => "landlock-tcp",
            Self::LandlockScopes => "landlock-scopes",
            Self::Seccomp => "seccomp",
            Self::Privilege => "privilege",
            Self::MemoryDenyWriteExecute => "memory-deny-write-execute",
            Self::Speculation => "speculation",
            Self::CoreScheduling => "core-scheduling",
            Self::Descriptors => "descriptors",
            Self::Cgroup => "cgroup",
            Self::Rlimits => "rlimits",
        }
    }

    /// Whether an operator may waive it. The others are what makes a Worker a prisoner at all.
    #[must_use]
    pub const fn waivable(self) -> bool {
        matches!(
            self,
            Self::OwnUid
                | Self::Landlock
                | Self::LandlockTcp
                | Self::LandlockScopes
                | Self::MemoryDenyWriteExecute
                | Self::Speculation
                | Self::CoreScheduling
                | Self::Cgroup
        )
    }

    /// Finds a wall by its configuration name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|wall| wall.name() == name)
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A message made no sense.
    Protocol,
    /// The launcher's own preparation.
    Setup,
    /// Making the child.
    Clone,
    /// Raising a wall.
    Wall(Wall),
    /// Unpacking the Worker's files.
    Files,
    /// Executing the binary.
    Exec,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol => f.write_str("protocol"),
            Self::Setup => f.write_str("set-up of the launcher"),
            Self::Clone => f.write_str("making a child process"),
            Self::Wall(wall) => write!(f, "wall {wall}"),
            Self::Files => f.write_str("unpacking the files"),
            Self::Exec => f.write_str("executing the binary"),
        }
    }
}

/// A step that failed: where, the kernel's error, and what was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[error("{stage}: {what}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct Failure {
    /// Where.
    pub stage: Stage,
    /// `errno`; 0 when the kernel gave none.
    pub errno: i32,
    /// What was tried, with the value.
    pub what: String,
}

impl Failure {
    /// What an operator can do about it.
    #[must_use]
    pub const fn fix(&self) -> &'static str {
        match self.stage {
            Stage::Protocol => "run the sandbox-runner and the cloister of one and the same build",
            Stage::Setup => "start cloister as root, or see `cloister doctor`",
            Stage::Clone => {
                "raise user.max_user_namespaces and user.max_net_namespaces, or free memory and pids"
            }
            Stage::Wall(Wall::Landlock) => {
                "boot a kernel with landlock (5.13 or newer, lsm=landlock,...), or waive `landlock`"
            }
            Stage::Wall(Wall::LandlockTcp) => {
                "boot Linux 6.7 or newer (landlock ABI 4), or waive `landlock-tcp`: the empty network namespace and seccomp still stand"
            }
            Stage::Wall(Wall::LandlockScopes) => {
                "boot Linux 6.12 or newer (landlock ABI 6), or waive `landlock-scopes`: the pid and network namespaces still stand"
            }
            Stage::Wall(Wall::Cgroup) => {
                "give cloister a cgroup with cpu, memory and pids (systemd: Delegate=yes), or waive `cgroup`"
            }
            Stage::Wall(Wall::OwnUid) => "start cloister as root with a free uid range, or waive `own-uid`",
            Stage::Wall(Wall::MemoryDenyWriteExecute) => {
                "boot Linux 6.3 or newer, or waive `memory-deny-write-execute`"
            }
            Stage::Wall(Wall::Privilege) => {
                "see `cloister doctor`; a stored binary must be executable and not readable by others (0111 or 0511)"
            }
            Stage::Wall(Wall::Speculation) => "waive `speculation`",
            Stage::Wall(Wall::CoreScheduling) => "waive `core-scheduling`",
            Stage::Wall(_) => "see `cloister doctor` for what this machine lacks",
            Stage::Files => "check the tar archive: plain files and folders with relative names, in the size",
            Stage::Exec => "check that the file is an ELF for this machine and that its loader exists here",
        }
    }
}
