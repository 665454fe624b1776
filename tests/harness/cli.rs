//! Running the command line tool.

use std::process::{ExitStatus, Stdio};

use serde_json::Value;

use crate::Platform;

/// What a run of `cloister` gave.
#[derive(Debug)]
pub struct Said {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Asserts success.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.out, self.err);
        self
    }

    /// Asserts failure, and that standard error holds each of `words`.
    #[track_caller]
    pub fn fails_saying(self, words: &[&str]) {
        assert!(!self.status.success(), "it succeeded: {}", self.out);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in:\n{}\n{}", self.err, self.out);
        }
    }

    /// Standard output as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.out))
    }
}

impl Platform {
    /// Runs `cloister` with these arguments to its end.
    pub async fn cli<const N: usize>(&self, arguments: [&str; N]) -> Said {
        let mut command = tokio::process::Command::from(self.command(arguments));
        let output = command.stdin(Stdio::null()).output().await.expect("running cloister");
        Said {
            status: output.status,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
