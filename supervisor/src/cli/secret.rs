//! `cloister secret`.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::Target;
use super::client::Client;
use super::error::CliError;
use super::show::{Show, table};
use crate::serve::exit;

/// Longest secret that is read, bytes; the API's own limit is lower and tells by itself.
const SECRET_BYTES: u64 = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Set one; its text is read from a file or from standard input, never from the command line.
    Put {
        #[command(flatten)]
        target: Target,
        /// Name of the secret.
        secret: String,
        /// File with the text; standard input without.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List the names.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Delete one.
    Delete {
        #[command(flatten)]
        target: Target,
        /// Name of the secret.
        secret: String,
    },
}

impl Secret {
    pub(super) async fn run(self, client: &Client, show: &Show) -> Result<(), CliError> {
        match self {
            Self::Put { target, secret, file } => {
                let text = text(file)?;
                let body = json!({"name": secret, "text": text, "type": "secret_text"});
                let path = format!("{}/secrets", target.path());
                let put = client.call(Method::PUT, &path, Some(&body)).await?;
                show.result(&put, |_| format!("set secret {secret} of {}", target.shown()));
            }
            Self::List { target } => {
                let all = client.call(Method::GET, &format!("{}/secrets", target.path()), None).await?;
                show.result(&all, |all| {
                    table(all.as_array().map_or(&[], Vec::as_slice), &[("NAME", "/name"), ("TYPE", "/type")])
                });
            }
            Self::Delete { target, secret } => {
                let path = format!("{}/secrets/{secret}", target.path());
                let gone = client.call(Method::DELETE, &path, None).await?;
                show.result(&gone, |_| format!("deleted secret {secret} of {}", target.shown()));
            }
        }
        Ok(())
    }
}

/// The text of a file or of standard input, without its last line end.
pub(super) fn text(file: Option<PathBuf>) -> Result<String, CliError> {
    let mut text = String::new();
    match file {
        Some(path) => {
            let failed = |error| CliError::file(&path, &error);
            let file = std::fs::File::open(&path).map_err(failed)?;
            file.take(SECRET_BYTES).read_to_string(&mut text).map_err(failed)?;
        }
        None => {
            let input = std::io::stdin();
            if input.is_terminal() {
                // Not hidden: there is no way to turn the echo off without help of the terminal.
                eprintln!("type the secret, then Ctrl-D (it is shown as you type; `--file` avoids that):");
            }
            let read = input.lock().take(SECRET_BYTES).read_to_string(&mut text);
            read.map_err(|error| CliError::failed(exit::FAILED, format!("standard input: {error}")))?;
        }
    }
    let trimmed = text.strip_suffix('\n').unwrap_or(&text);
    Ok(trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned())
}
