//! What a blank reports.

use serde::{Deserialize, Serialize};

use super::Wall;

/// What was really enforced, as the blank saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Enforced {
    /// Namespaces of its own.
    pub namespaces: Vec<String>,
    /// Landlock; `None` when waived.
    pub landlock: Option<LandlockEnforced>,
    /// Instructions of each seccomp program: the one inherited from the launcher, the first, the last.
    pub seccomp: Vec<u32>,
    /// Capabilities left in any set, as a mask; 0.
    pub capabilities: u64,
    /// `no_new_privs` is set.
    pub no_new_privs: bool,
    /// Secure bits (`prctl(PR_GET_SECUREBITS)`).
    pub securebits: u32,
    /// Mitigations and how they stand.
    pub mitigations: Vec<Mitigation>,
    /// Resource limits by name.
    pub rlimits: Vec<(String, u64)>,
    /// Mount points and their flags.
    pub mounts: Vec<String>,
    /// Walls that were waived.
    pub waived: Vec<Wall>,
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
