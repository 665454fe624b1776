//! Why a supervisor does not run.

use crate::config::ConfigError;

/// Exit statuses of the `cloister` program. Stable; docs/OPERATIONS.md lists them.
pub mod exit {
    /// Something else failed.
    pub const FAILED: u8 = 1;
    /// Wrong command line (clap's own).
    pub const USAGE: u8 = 2;
    /// The configuration or a policy file has a mistake.
    pub const CONFIG: u8 = 3;
    /// The state folder can't be used.
    pub const STATE: u8 = 4;
    /// A listening socket can't be had.
    pub const LISTEN: u8 = 5;
    /// The launcher or a wall failed.
    pub const WALLS: u8 = 6;
    /// Not enough privilege, or no account to change to.
    pub const PRIVILEGE: u8 = 7;
    /// The admin API refused.
    pub const REFUSED: u8 = 8;
    /// The admin API can't be reached.
    pub const UNREACHABLE: u8 = 9;
    /// `doctor` found something wrong.
    pub const UNHEALTHY: u8 = 10;
    /// `policy test`: the policy denies it.
    pub const DENIED: u8 = 11;
    /// `worker inspect`: the kernel does not confirm a wall of a live process.
    pub const DISAGREES: u8 = 12;
}

/// Why a supervisor does not run: what failed, why, what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// Anything else.
    #[error("{what}: {why}")]
    Step {
        /// What was tried.
        what: String,
        /// Why it failed.
        why: String,
        /// What to do.
        fix: Option<String>,
        /// Exit status.
        exit: u8,
    },
}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}

impl ServeError {
    /// A failed step.
    pub(super) fn step(exit: u8, what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Step { what: what.into(), why: why.to_string(), fix: None, exit }
    }

    /// Adds what to do.
    #[must_use]
    pub(super) fn fix(self, text: impl Into<String>) -> Self {
        match self {
            Self::Step { what, why, exit, .. } => Self::Step { what, why, fix: Some(text.into()), exit },
            config @ Self::Config(_) => config,
        }
    }

    /// Exit status.
    #[must_use]
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Config(_) => exit::CONFIG,
            Self::Step { exit, .. } => *exit,
        }
    }
}
