//! Limits of one invocation and resources of one Worker process.

use std::time::Duration;

/// Limits of one invocation; `None` does not limit. From plan, Worker and dispatch call the lowest
/// of each wins: see [`Limits::lowest`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU time, milliseconds.
    pub cpu_ms: Option<u32>,
    /// Wall time until the response's end, milliseconds.
    pub wall_ms: Option<u32>,
    /// Outgoing requests and dispatches.
    pub subrequests: Option<u32>,
    /// Request body, bytes.
    pub request_body_bytes: Option<u64>,
}

impl Limits {
    /// The lowest of each limit.
    #[must_use]
    pub fn lowest(self, other: Self) -> Self {
        fn low<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            cpu_ms: low(self.cpu_ms, other.cpu_ms),
            wall_ms: low(self.wall_ms, other.wall_ms),
            subrequests: low(self.subrequests, other.subrequests),
            request_body_bytes: low(self.request_body_bytes, other.request_body_bytes),
        }
    }

    /// CPU limit as a duration.
    #[must_use]
    pub fn cpu(self) -> Option<Duration> {
        self.cpu_ms.map(|ms| Duration::from_millis(ms.into()))
    }

    /// Wall limit as a duration.
    #[must_use]
    pub fn wall(self) -> Option<Duration> {
        self.wall_ms.map(|ms| Duration::from_millis(ms.into()))
    }
}

/// What a Worker process may use, enforced by its cgroup and its mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Memory (cgroup), bytes.
    pub memory_bytes: u64,
    /// Processes and threads (cgroup).
    pub pids: u32,
    /// CPU ceiling, percent of one core; 100 is one core (cgroup `cpu.max`).
    pub cpu_percent: u32,
    /// Size of `/tmp`, bytes.
    pub tmp_bytes: u64,
}

impl Default for Resources {
    fn default() -> Self {
        Self { memory_bytes: 128 << 20, pids: 64, cpu_percent: 100, tmp_bytes: 16 << 20 }
    }
}
