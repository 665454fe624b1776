//! Messages between the supervisor, the launcher and blanks, all on `SOCK_SEQPACKET` sockets.
//!
//! A **blank** is a child of the launcher that is already behind its walls and waits for a binary.
//!
//! * supervisor → launcher: [`ToLauncher`]; the first is [`ToLauncher::Configure`], answered once by
//!   [`FromLauncher::Ready`] or [`FromLauncher::Refused`].
//! * launcher → supervisor: [`FromLauncher`]. [`FromLauncher::Made`] carries the blank's *start
//!   socket*; the supervisor talks to the blank itself from there on, so a start never waits behind
//!   a clone.
//! * on the start socket: [`ToBlank::Enter`] (by the launcher), then [`FromBlank::Ready`] with the
//!   sockets made in the network namespace, then [`ToBlank::Start`] with the binary, then
//!   [`FromBlank::Raised`] and the end of the socket (it closes on exec), or [`FromBlank::Failed`].
//!
//! The launcher's end of file is its order to kill everything and exit.

mod enforced;
mod failure;
mod kernel;

use serde::{Deserialize, Serialize};

pub use enforced::{
    CgroupLimit, Enforced, LandlockEnforced, Mitigation, MitigationState, MountEnforced, SeccompEnforced,
};
pub use failure::{Failure, Stage, Wall};
pub use kernel::{KernelView, NAMESPACES, PROC_TEXT_BYTES};

/// Number of a blank and of the process it becomes; given by the supervisor, never used twice.
pub type BlankId = u64;

/// Port a Worker of the `http` contract answers on.
pub const WORKER_PORT: u16 = 8080;

/// Port of the egress proxy on a Worker's loopback.
pub const PROXY_PORT: u16 = 3128;

/// Descriptor number of the binary at exec. `RLIMIT_NOFILE` equals it, so afterwards no descriptor
/// can have this number, and the seccomp filter allows execveat with no other.
pub const BINARY_FD: i32 = 1023;

/// Most bytes of a seccomp program: 4096 instructions of 8 bytes, the kernel's own limit.
pub const FILTER_BYTES: usize = 4096 * 8;

/// Most sockets asked for in one message.
pub const SOCKETS: u8 = 30;

/// Supervisor → launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum ToLauncher {
    /// Once, first.
    Configure(Configure),
    /// Make a blank.
    Make {
        /// Its number.
        blank: BlankId,
        /// How it shall be.
        spec: Spec,
    },
    /// Make more sockets in a live Worker's network namespace.
    Sockets {
        /// Whose.
        blank: BlankId,
        /// How many, at most [`SOCKETS`].
        count: u8,
    },
    /// Tell what the kernel says of a live process.
    Inspect {
        /// Which.
        blank: BlankId,
    },
    /// Kill the whole process tree.
    Kill {
        /// Whose.
        blank: BlankId,
    },
}

/// What the launcher is told once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Configure {
    /// First host uid for Workers.
    pub uid_base: u32,
    /// How many host uids; also the most Workers alive at a time.
    pub uid_count: u32,
    /// Walls the operator waived.
    pub waived: Vec<Wall>,
}

/// How a blank is made. Everything here is the same for many Workers, so blanks can be made ahead.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Spec {
    /// The loader and the library folders are there.
    pub libraries: bool,
    /// A `/proc` of its own pid namespace, processes only.
    pub proc: bool,
    /// Loopback is up, the proxy listens, sockets are made.
    pub network: Option<NetworkSpec>,
    /// Size of `/tmp`, bytes; at least a page.
    pub tmp_bytes: u64,
    /// Size of `/app`, bytes; 0 for none.
    pub app_bytes: u64,
    /// cgroup limits.
    pub cgroup: CgroupSpec,
    /// Memory may be writable and executable.
    pub jit: bool,
    /// It may have child processes.
    pub processes: bool,
    /// The first seccomp program (raw `sock_filter`s), installed in the blank.
    #[serde(with = "serde_bytes")]
    pub base: Vec<u8>,
}

/// Sockets that come with a blank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct NetworkSpec {
    /// How many sockets for connections, at most [`SOCKETS`].
    pub sockets: u8,
}

/// cgroup limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct CgroupSpec {
    /// `memory.max`, bytes.
    pub memory_bytes: u64,
    /// `pids.max`.
    pub pids: u32,
    /// `cpu.max`, percent of one core.
    pub cpu_percent: u32,
    /// `cpu.weight`, 1 to 10,000; 100 is usual.
    pub cpu_weight: u32,
}

/// Launcher → supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum FromLauncher {
    /// Configured; blanks can be made.
    Ready(Machine),
    /// It can't work; it exits.
    Refused(Failure),
    /// With the start socket. The blank says by itself when it is ready.
    Made {
        /// Its number.
        blank: BlankId,
        /// Its host pid.
        pid: i32,
        /// Its host uid.
        uid: u32,
    },
    /// There is no such blank.
    MakeFailed {
        /// Its number.
        blank: BlankId,
        /// Why.
        failure: Failure,
    },
    /// With the sockets asked for.
    Sockets {
        /// Whose.
        blank: BlankId,
    },
    /// The sockets asked for can't be made.
    SocketsFailed {
        /// Whose.
        blank: BlankId,
        /// `errno`.
        errno: i32,
    },
    /// What the kernel says.
    Inspected {
        /// Of whom.
        blank: BlankId,
        /// What.
        view: Box<KernelView>,
    },
    /// The kernel's view can't be had.
    InspectFailed {
        /// Of whom.
        blank: BlankId,
        /// `errno`; `ESRCH` when there is no such process (any more).
        errno: i32,
    },
    /// A process is gone, with all it forked.
    Exited(Exited),
}

/// What the launcher found on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Machine {
    /// Landlock ABI; 0 when there is none.
    pub landlock_abi: i32,
    /// Walls that this kernel's landlock can't raise.
    pub landlock_lacks: Vec<Wall>,
    /// Which cgroups are used.
    pub cgroup: CgroupMode,
    /// Where the memory of Workers is told: the folder that has one for each, by its number. `None` when cgroups are
    /// waived.
    pub memory_folder: Option<String>,
    /// Every Worker has a host uid of its own.
    pub own_uid: bool,
}

/// Which cgroups are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
#[serde(rename_all = "lowercase")]
pub enum CgroupMode {
    /// One hierarchy with every controller.
    V2,
    /// A hierarchy per controller (also on hybrid hosts).
    V1,
    /// Waived.
    None,
}

impl CgroupMode {
    /// The file that tells what a cgroup's memory is at now, in bytes (cgroup-v2.rst, cgroup-v1/memory.rst).
    #[must_use]
    pub const fn memory_file(self) -> &'static str {
        match self {
            Self::V2 => "memory.current",
            Self::V1 | Self::None => "memory.usage_in_bytes",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Exited {
    /// Its number.
    pub blank: BlankId,
    /// How.
    pub status: ExitStatus,
    /// It was killed for its memory limit.
    pub oom_killed: bool,
    /// CPU time of it and of the children it waited for, microseconds.
    pub cpu_us: u64,
    /// Most memory it used at a time, bytes; `None` when no cgroup told.
    pub memory_peak: Option<u64>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// To a blank, on its start socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum ToBlank {
    /// By the launcher: ids are mapped, raise the walls.
    Enter,
    /// With descriptors in this order: binary (`O_PATH`), stdout, stderr, then the control socket if
    /// [`Start::control`], then the archive if [`Start::files`].
    Start(Start),
}

/// What a blank becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Start {
    /// Arguments, the first being the name. No NUL bytes.
    pub argv: Vec<String>,
    /// Environment, `NAME=value` each. No NUL bytes.
    pub env: Vec<String>,
    /// Absolute path of the loader, for landlock's execute right.
    pub interpreter: Option<String>,
    /// TCP ports it may bind.
    pub bind: Vec<u16>,
    /// TCP ports it may connect to.
    pub connect: Vec<u16>,
    /// Descriptor 3 is a socket that listens on this port.
    pub listen: Option<u16>,
    /// Descriptor 3 is the control socket.
    pub control: bool,
    /// An archive is to be unpacked to `/app`, and `/app` is the working directory.
    pub files: bool,
    /// The second seccomp program, installed last before exec.
    #[serde(with = "serde_bytes")]
    pub last: Vec<u8>,
}

/// From a blank, on its start socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum FromBlank {
    /// Waits for [`ToBlank::Start`]. With a network: the proxy's listening socket, then the sockets.
    Ready,
    /// Every wall but the last filter stands; what follows is exec or [`FromBlank::Failed`].
    Raised {
        /// What is enforced.
        enforced: Box<Enforced>,
        /// The seccomp programs as they were (and the last as it will be) given to the kernel, in the
        /// order of [`Enforced::seccomp`].
        #[cfg_attr(test, proptest(strategy = "some_filters()"))]
        filters: Vec<serde_bytes::ByteBuf>,
    },
    /// It ends.
    Failed(Failure),
}

#[cfg(test)]
fn some_filters() -> impl proptest::strategy::Strategy<Value = Vec<serde_bytes::ByteBuf>> {
    use proptest::prelude::*;
    let program = proptest::collection::vec(any::<u8>(), 0..64);
    proptest::collection::vec(program.prop_map(serde_bytes::ByteBuf::from), 0..4)
}
