//! Patterns of routes.

use serde::Deserialize;

use crate::registry::{NAME_BYTES, Name};

/// Not a pattern; the text says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(String);

/// Which host names a route takes. Compared without port, in lower case, without a trailing dot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum HostPattern {
    /// `*`, or no pattern.
    #[default]
    Any,
    /// One name or IP address.
    Exact(String),
    /// `*.example.com`: exactly one label, then the suffix (kept with its leading dot).
    Label {
        /// `.example.com`
        suffix: String,
    },
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let bad = || {
            PatternError(format!(
                "{text:?} is not a host pattern: allowed are \"*\", a host name in ASCII (\"shop.example.com\"), \
                 or one whole label as wildcard in front (\"*.example.com\"); no port"
            ))
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let lower = text.trim_end_matches('.').to_ascii_lowercase();
        let (wildcard, host) = match lower.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, lower.as_str()),
        };
        let address = host.trim_matches(|c| c == '[' || c == ']').parse::<std::net::IpAddr>().is_ok();
        let label = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = host.len() <= 253 && host.split('.').all(label);
        match (wildcard, name || address) {
            (_, false) => Err(bad()),
            (true, true) if address => Err(bad()),
            (true, true) => Ok(Self::Label { suffix: format!(".{host}") }),
            (false, true) => Ok(Self::Exact(host.to_owned())),
        }
    }
}

impl HostPattern {
    /// Whether it takes `host`; `Some` holds the label the wildcard stands for (empty without one).
    #[must_use]
    pub fn matches<'h>(&self, host: &'h str) -> Option<&'h str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Any => Some(""),
            Self::Exact(name) => host.eq_ignore_ascii_case(name).then_some(""),
            Self::Label { suffix } => {
                let at = host.len().checked_sub(suffix.len())?;
                let (label, rest) = host.split_at_checked(at)?;
                let one = !label.is_empty() && !label.contains('.');
                (one && rest.eq_ignore_ascii_case(suffix)).then_some(label)
            }
        }
    }
}

/// Which paths a route takes. The path is compared as sent, before any decoding.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PathPattern {
    /// `/*`, or no pattern.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// `/v1/*`: everything below (kept as `/v1/`).
    Prefix(String),
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let (prefix, path) = match text.strip_suffix("/*") {
            Some(rest) => (true, format!("{rest}/")),
            None => (false, text.clone()),
        };
        let printable = path.bytes().all(|b| (0x21..0x7f).contains(&b) && !matches!(b, b'*' | b'?' | b'#'));
        if !path.starts_with('/') || !printable {
            return Err(PatternError(format!(
                "{text:?} is not a path pattern: allowed are a path (\"/health\") or everything below one \
                 (\"/v1/*\"); it starts with / and has no query"
            )));
        }
        Ok(match (prefix, path.as_str()) {
            (true, "/") => Self::Any,
            (true, _) => Self::Prefix(path),
            (false, _) => Self::Exact(path),
        })
    }
}

impl PathPattern {
    /// Whether it takes `path` (without the query).
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

/// A Worker's name that may hold `{1}`, the label that the host pattern's `*` stands for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum NameTemplate {
    /// Always this Worker.
    Literal(Name),
    /// `{1}` between two texts.
    Label {
        /// Before `{1}`.
        prefix: String,
        /// After `{1}`.
        suffix: String,
    },
}

impl TryFrom<String> for NameTemplate {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let Some((prefix, suffix)) = text.split_once("{1}") else {
            return Name::parse(&text).map(Self::Literal).map_err(|error| {
                PatternError(format!("{error}; or with {{1}} for the label that * in host stands for"))
            });
        };
        let fits = |part: &str| {
            part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        };
        if fits(prefix) && fits(suffix) && prefix.len() + suffix.len() < NAME_BYTES {
            Ok(Self::Label { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
        } else {
            Err(PatternError(format!("{text:?}: beside one {{1}} only a-z, 0-9, _ and - are allowed")))
        }
    }
}

impl NameTemplate {
    /// The name for a captured label; `None` when that is no valid name.
    #[must_use]
    pub fn resolve(&self, label: &str) -> Option<Name> {
        match self {
            Self::Literal(name) => Some(name.clone()),
            Self::Label { prefix, suffix } => {
                let plain = prefix.is_empty() && suffix.is_empty();
                if plain && !label.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Name::parse(label).ok();
                }
                Name::parse(&format!("{prefix}{}{suffix}", label.to_ascii_lowercase())).ok()
            }
        }
    }
}
