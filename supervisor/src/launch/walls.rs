//! What was really enforced for one process.

use cloister_ipc::launch::{CgroupSpec, Enforced, Machine};
use serde::Serialize;

/// What was really enforced for one process: the attestation of its walls.
#[derive(Debug, Clone, Serialize)]
pub struct Walls {
    /// Host pid.
    pub pid: i32,
    /// Host uid.
    pub uid: u32,
    /// What the launcher found on this machine.
    pub machine: Machine,
    /// What the process saw enforced right before exec.
    pub enforced: Enforced,
    /// cgroup limits.
    pub cgroup: CgroupSpec,
    /// Size of `/tmp`, bytes.
    pub tmp_bytes: u64,
}
