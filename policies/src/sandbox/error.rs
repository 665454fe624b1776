//! What is wrong with a policy file, and why a Worker does not get what it asked for.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Waiver;

/// A sandbox policy that can't be used. Nothing of it is applied.
#[derive(Debug, thiserror::Error)]
pub enum SandboxPolicyError {
    /// The file can't be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says something wrong.
    #[error("{}:{line}:{column}: {key}{}{message}", path.display(), if key.is_empty() { "" } else { ": " })]
    At {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// The key, dotted; empty when the file as a whole is meant.
        key: String,
        /// What is wrong and what is allowed.
        message: String,
    },
}

impl SandboxPolicyError {
    pub(super) fn at(
        path: &Path,
        text: &str,
        span: Option<Range<usize>>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let before = span.and_then(|span| text.get(..span.start)).unwrap_or("");
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Self::At {
            path: path.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            key: key.into(),
            message: message.into(),
        }
    }
}

/// What a Worker asked for and does not get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More of a resource than the ceiling.
    #[error("{key}: {asked} is over the most that the sandbox policy allows here, {most}")]
    OverCeiling {
        /// The key of the upload.
        key: &'static str,
        /// What was asked.
        asked: u64,
        /// The ceiling.
        most: u64,
    },
    /// Nothing at all of a resource.
    #[error("{key}: 0 is not allowed, the least is {least}")]
    Nothing {
        /// The key of the upload.
        key: &'static str,
        /// The least.
        least: u64,
    },
    /// A wall lowered without a grant.
    #[error(
        "allow: \"{waiver}\" is not granted to this Worker by the sandbox policy; granted here: {granted} \
         (the operator grants it by a [[grant]] with allow = [\"{waiver}\"])"
    )]
    NotGranted {
        /// What was asked.
        waiver: Waiver,
        /// What is granted, for people; "nothing" when nothing is.
        granted: String,
    },
}
