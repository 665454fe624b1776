//! What a blank reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Wall;

/// What was really enforced, as the blank saw it: read back from the kernel where it tells, and of
/// the very bytes it was given where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Enforced {
    /// Namespaces of its own by name, and their inode numbers (`/proc/PID/ns/*`).
    pub namespaces: BTreeMap<String, u64>,
    /// Landlock; `None` when waived.
    pub landlock: Option<LandlockEnforced>,
    /// seccomp programs in the order they were installed: the one inherited from the launcher, the
    /// first, the last.
    pub seccomp: Vec<SeccompEnforced>,
    /// Capabilities left in any set, as a mask; 0.
    pub capabilities: u64,
    /// `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Secure bits (`prctl(PR_GET_SECUREBITS)`).
    pub securebits: u32,
    /// Mitigations and how they stand.
    pub mitigations: Vec<Mitigation>,
    /// Resource limits by name; soft and hard are the same.
    pub rlimits: Vec<(String, u64)>,
    /// Mount points, in no order.
    pub mounts: Vec<MountEnforced>,
    /// cgroup limits as the kernel told them after they were written; empty when waived.
    pub cgroup: Vec<CgroupLimit>,
    /// Walls that were waived.
    pub waived: Vec<Wall>,
}

/// One seccomp program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct SeccompEnforced {
    /// Instructions.
    pub instructions: u32,
    /// SHA-256 of its `sock_filter`s, 64 hexadecimal digits. The supervisor makes it, of the bytes that
    /// the process says it gave to the kernel; empty before.
    pub sha256: String,
}

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct MountEnforced {
    /// Where.
    pub point: String,
    /// Its options, separated by commas, as in mountinfo (proc_pid_mountinfo(5)). Those promised are
    /// among those the kernel tells.
    pub options: String,
}

impl MountEnforced {
    /// A mount.
    #[must_use]
    pub fn new(point: impl Into<String>, options: impl Into<String>) -> Self {
        Self { point: point.into(), options: options.into() }
    }
}

/// One file of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct CgroupLimit {
    /// Its name, as `memory.max`.
    pub file: String,
    /// What it says.
    pub value: String,
}

/// What landlock enforces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct LandlockEnforced {
    /// The running kernel's ABI.
    pub abi: i32,
    /// File system rights handled, as a mask.
    pub fs: u64,
    /// Network rights handled, as a mask.
    pub net: u64,
    /// Scopes, as a mask.
    pub scopes: u64,
    /// What the running kernel's landlock can't restrict, in words.
    pub lacks: Vec<String>,
    /// The kernel says that all of it is enforced.
    pub full: bool,
}

/// One mitigation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Mitigation {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: MitigationState,
}

/// How a mitigation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "kebab-case")]
pub enum MitigationState {
    /// On.
    On,
    /// This machine or kernel has no such control; the `errno` it said so with.
    Unavailable(i32),
    /// Waived, or not wanted for this Worker.
    Waived,
}
