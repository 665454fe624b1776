//! The supervisor's own walls by name.

use std::fmt;

use serde::Serialize;

/// A wall around the supervisor itself; waived by name as a Worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupervisorWall {
    /// Which files, sockets and processes it can reach by name.
    #[serde(rename = "supervisor-landlock")]
    Landlock,
    /// Which system calls it can make.
    #[serde(rename = "supervisor-seccomp")]
    Seccomp,
}

impl SupervisorWall {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Landlock, Self::Seccomp];

    /// The name used in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Landlock => "supervisor-landlock",
            Self::Seccomp => "supervisor-seccomp",
        }
    }
}

impl fmt::Display for SupervisorWall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
