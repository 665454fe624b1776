//! Why a Worker did not start.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cloister_ipc::launch::{Failure, Stage};

use super::Exit;

/// Why a Worker did not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The launcher is gone; nothing can be started any more.
    #[error("the launcher is gone: {0}")]
    LauncherGone(String),
    /// The walls could not be raised, or the binary could not be executed.
    #[error("{0}; {fix}", fix = .0.fix())]
    Failed(Failure),
    /// The process died before the binary ran.
    #[error("the process died before the binary ran: {0:?}")]
    Died(Exit),
    /// A stored file can't be opened.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The arguments or variables can't be passed to a process.
    #[error("{0}")]
    Arguments(String),
    /// The policy gave no filter for this Worker.
    #[error("no seccomp filter: {0}")]
    Filter(String),
    /// It took too long.
    #[error("not started within {0:?}")]
    Timeout(Duration),
    /// The supervisor's own system calls failed.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: String,
    },
}

impl StartError {
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, error: error.to_string() }
    }

    /// Whether the fault lies in the Worker's own binary, files or arguments, and not in the
    /// platform: starting it again can't help.
    #[must_use]
    pub const fn is_workers_fault(&self) -> bool {
        matches!(self, Self::Arguments(_) | Self::Failed(Failure { stage: Stage::Exec | Stage::Files, .. }))
    }
}
