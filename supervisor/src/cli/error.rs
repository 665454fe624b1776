//! What a command failed with.

use crate::serve::{ServeError, exit};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Running the platform.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The admin API said no.
    #[error("{message} [code: {code}]")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The API's stable code.
        code: u64,
        /// Its message.
        message: String,
    },
    /// Anything else.
    #[error("{message}")]
    Failed {
        /// What failed.
        message: String,
        /// Exit status.
        exit: u8,
    },
}

impl CliError {
    /// Any failure.
    pub(super) fn failed(exit: u8, message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), exit }
    }

    /// A file of the user's that can't be used.
    pub(super) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::failed(exit::FAILED, format!("{}: {error}", path.display()))
    }

    /// Exit status.
    #[must_use]
    pub const fn exit(&self) -> u8 {
        match self {
            Self::Serve(error) => error.exit(),
            Self::Refused { .. } => exit::REFUSED,
            Self::Failed { exit, .. } => *exit,
        }
    }
}
