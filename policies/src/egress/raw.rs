//! A policy file as it is written: shapes only, each value with its place in the file.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::error::Problem;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) version: Spanned<i64>,
    #[serde(default)]
    pub(super) mode: RawMode,
    #[serde(default)]
    pub(super) default: RawDefault,
    #[serde(default, rename = "rule")]
    pub(super) rules: Vec<RawRule>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawMode {
    #[default]
    Enforce,
    Report,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawDefault {
    Allow,
    #[default]
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAction {
    Allow,
    Deny,
    Outbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawScheme {
    Http,
    Https,
}

/// A list with its place and its items' places.
pub(super) type List<T> = Spanned<Vec<Spanned<T>>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub(super) name: Spanned<String>,
    pub(super) hosts: List<String>,
    pub(super) ports: Option<List<i64>>,
    pub(super) schemes: Option<List<RawScheme>>,
    pub(super) methods: Option<List<String>>,
    pub(super) paths: Option<List<String>>,
    pub(super) action: Spanned<RawAction>,
    pub(super) outbound_worker: Option<Spanned<String>>,
    pub(super) networks: Option<List<String>>,
    pub(super) set_headers: Option<Spanned<BTreeMap<Spanned<String>, Spanned<String>>>>,
    pub(super) remove_headers: Option<List<String>>,
    pub(super) log: Option<bool>,
    pub(super) limits: Option<Spanned<RawLimits>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) requests_per_second: Option<Spanned<i64>>,
    pub(super) response_bytes: Option<Spanned<RawSize>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number of bytes, or a text as in \"10MiB\"")]
pub(super) enum RawSize {
    Bytes(i64),
    Text(String),
}

/// Reads the shape; one problem at most, since the reader stops at the first.
pub(super) fn read(text: &str) -> Result<RawPolicy, Problem> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| problem(text, "", &error))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = key_of(error.path());
        problem(text, &key, error.inner())
    })
}

fn problem(text: &str, key: &str, error: &toml::de::Error) -> Problem {
    let message = error.message();
    // serde appends what is allowed to its message; keep it apart.
    let (message, allowed) = match message.split_once(", expected ") {
        Some((message, allowed)) => (message, Some(allowed.trim_start_matches("one of "))),
        None => (message, None),
    };
    let span = error.span().unwrap_or(0..0);
    let problem = Problem::new(text, span, key, message.replace('\n', " "));
    match allowed {
        Some(allowed) => problem.allow(allowed.replace('`', "")),
        None => problem,
    }
}

/// The path to the value, without the steps that only carry spans.
fn key_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    let mut key = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => key.push_str(&format!("[{index}]")),
            Segment::Map { key: name } if name.starts_with("$__") => {}
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !key.is_empty() {
                    key.push('.');
                }
                key.push_str(name);
            }
            Segment::Unknown => {}
        }
    }
    key
}
