//! One rule, validated, and what it says about a request.

use std::num::NonZeroU32;
use std::sync::Arc;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::asked::{Asked, Content, Scheme};
use super::header::HeaderTemplate;
use super::host::HostPattern;
use super::path::PathPattern;

/// One validated rule. An empty list does not narrow the rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, unique in the policy.
    pub name: Arc<str>,
    pub(super) hosts: Vec<HostPattern>,
    pub(super) ports: Vec<u16>,
    pub(super) schemes: Vec<Scheme>,
    pub(super) methods: Vec<Method>,
    pub(super) paths: Vec<PathPattern>,
    pub(super) action: Action,
    /// Networks whose addresses may be dialled although they are not global.
    pub networks: Vec<IpNet>,
    /// Headers to take away, before any is set.
    pub remove_headers: Vec<HeaderName>,
    /// Headers to set, in place of any of that name.
    pub set_headers: Vec<(HeaderName, HeaderTemplate)>,
    /// Whether its decisions are worth a line in the log.
    pub log: bool,
    /// Requests a second, for each Worker by itself.
    pub requests_per_second: Option<NonZeroU32>,
    /// Most bytes of a response's body (of what comes back through a tunnel).
    pub response_bytes: Option<u64>,
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Lets it pass.
    Allow,
    /// Refuses it.
    Deny,
    /// Hands it to the outbound Worker of the dispatch call, or else to this one of the account.
    Outbound(Option<Arc<str>>),
}

/// The first thing about a request that a rule does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mismatch {
    /// `hosts`.
    Host,
    /// `ports`.
    Port,
    /// `schemes`.
    Scheme,
    /// `methods`.
    Method,
    /// `paths`.
    Path,
    /// The path is ambiguous, and the rule would have let it pass.
    AmbiguousPath,
}

impl Mismatch {
    /// In words, to follow "the rule does not match:".
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Host => "another host",
            Self::Port => "another port",
            Self::Scheme => "another scheme",
            Self::Method => "another method",
            Self::Path => "another path",
            Self::AmbiguousPath => "servers may read this path differently, so nothing may be allowed by it",
        }
    }
}

/// How a rule fits a request.
pub(super) enum Fit {
    Matches,
    /// It is about the content of a request that only a tunnel was asked for.
    CannotJudge(&'static str),
    Differs(Mismatch),
}

impl Rule {
    /// The action.
    #[must_use]
    pub const fn action(&self) -> &Action {
        &self.action
    }

    pub(super) fn fit(&self, asked: &Asked<'_>) -> Fit {
        if !self.hosts.iter().any(|pattern| pattern.matches(asked.host)) {
            return Fit::Differs(Mismatch::Host);
        }
        if !self.ports.is_empty() && !self.ports.contains(&asked.port) {
            return Fit::Differs(Mismatch::Port);
        }
        if !self.schemes.is_empty() && !self.schemes.contains(&asked.scheme) {
            return Fit::Differs(Mismatch::Scheme);
        }
        let (method, path) = match asked.content {
            Content::Request { method, path } => (method, path),
            Content::Tunnel => return self.hidden_by_tunnel().map_or(Fit::Matches, Fit::CannotJudge),
        };
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Fit::Differs(Mismatch::Method);
        }
        if self.paths.is_empty() {
            return Fit::Matches;
        }
        match (path.ambiguous(), &self.action) {
            (Some(_), Action::Deny) => Fit::Matches,
            (Some(_), Action::Allow | Action::Outbound(_)) => Fit::Differs(Mismatch::AmbiguousPath),
            (None, _) if self.paths.iter().any(|pattern| pattern.matches(path)) => Fit::Matches,
            (None, _) => Fit::Differs(Mismatch::Path),
        }
    }

    /// Which key of the rule needs to see requests that a tunnel hides.
    fn hidden_by_tunnel(&self) -> Option<&'static str> {
        if !self.methods.is_empty() {
            Some("methods")
        } else if !self.paths.is_empty() {
            Some("paths")
        } else if matches!(self.action, Action::Outbound(_)) {
            Some("action = \"outbound\"")
        } else if !self.set_headers.is_empty() {
            Some("set_headers")
        } else if !self.remove_headers.is_empty() {
            Some("remove_headers")
        } else {
            None
        }
    }
}
