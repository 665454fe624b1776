//! Machines that have a policy.

/// A machine's system call table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86; its i386 and x32 entries are killed.
    X86_64,
    /// 64-bit ARM; its 32-bit entry is killed.
    Aarch64,
}

/// Names of an architecture's own files, with their text.
pub(super) struct ArchFiles {
    pub(super) numbers: (&'static str, &'static str),
    pub(super) legacy: Option<(&'static str, &'static str)>,
    pub(super) processes: Option<(&'static str, &'static str)>,
    pub(super) supervisor: Option<(&'static str, &'static str)>,
}

impl Arch {
    /// The machine this is compiled for.
    #[must_use]
    pub const fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// `AUDIT_ARCH_*` (linux/audit.h): what the kernel puts into `seccomp_data.arch`.
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// First number of a second table behind the same `AUDIT_ARCH_*` (x32), which is killed.
    pub(super) const fn foreign(self) -> Option<u32> {
        match self {
            Self::X86_64 => Some(0x4000_0000),
            Self::Aarch64 => None,
        }
    }

    pub(super) const fn files(self) -> ArchFiles {
        match self {
            Self::X86_64 => ArchFiles {
                numbers: ("x86_64/numbers.toml", include_str!("../../seccomp/x86_64/numbers.toml")),
                legacy: Some(("x86_64/legacy.toml", include_str!("../../seccomp/x86_64/legacy.toml"))),
                processes: Some((
                    "x86_64/processes.toml",
                    include_str!("../../seccomp/x86_64/processes.toml"),
                )),
                supervisor: Some((
                    "x86_64/supervisor.toml",
                    include_str!("../../seccomp/x86_64/supervisor.toml"),
                )),
            },
            Self::Aarch64 => ArchFiles {
                numbers: ("aarch64/numbers.toml", include_str!("../../seccomp/aarch64/numbers.toml")),
                legacy: None,
                processes: None,
                supervisor: None,
            },
        }
    }
}

/// Name of a system call, from the machine's table.
pub(super) fn name(arch: Arch, number: u32) -> Option<&'static str> {
    let (_, text) = arch.files().numbers;
    text.lines()
        .find_map(|line| line.split_once(" = ").filter(|(_, is)| is.parse() == Ok(number)))
        .map(|(name, _)| name)
}
