//! `cloister namespace`.

use clap::Subcommand;
use http::Method;
use serde_json::json;

use super::client::Client;
use super::error::CliError;
use super::show::{Show, cell, table};
use crate::registry::Name;

const NAMESPACES: &str = "/workers/dispatch/namespaces";
const COLUMNS: [(&str, &str); 4] = [
    ("NAME", "/namespace_name"),
    ("WORKERS", "/script_count"),
    ("CREATED", "/created_on"),
    ("ID", "/namespace_id"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Namespace {
    /// Create one.
    Create {
        /// Its name.
        name: Name,
    },
    /// List all.
    List,
    /// Show one.
    Get {
        /// Its name.
        name: Name,
    },
    /// Delete one with all of its Workers.
    Delete {
        /// Its name.
        name: Name,
    },
}

impl Namespace {
    pub(super) async fn run(self, client: &Client, show: &Show) -> Result<(), CliError> {
        match self {
            Self::Create { name } => {
                let made = client.call(Method::POST, NAMESPACES, Some(&json!({"name": name}))).await?;
                show.result(&made, |_| format!("created namespace {name}"));
            }
            Self::List => {
                let all = client.call(Method::GET, NAMESPACES, None).await?;
                show.result(&all, |all| table(all.as_array().map_or(&[], Vec::as_slice), &COLUMNS));
            }
            Self::Get { name } => {
                let one = client.call(Method::GET, &format!("{NAMESPACES}/{name}"), None).await?;
                show.result(&one, |one| {
                    COLUMNS.map(|(title, key)| format!("{title:8} {}", cell(one.pointer(key)))).join("\n")
                });
            }
            Self::Delete { name } => {
                let gone = client.call(Method::DELETE, &format!("{NAMESPACES}/{name}"), None).await?;
                show.result(&gone, |_| format!("deleted namespace {name} and its Workers"));
            }
        }
        Ok(())
    }
}
