//! Why an outgoing request got no response.

use std::net::IpAddr;

use cloister_ipc::worker::FetchError;
use http::StatusCode;

use super::Exhausted;
use crate::outcome::Failure;

/// Why an outgoing request got no response. The text is for the Worker that asked: it names the
/// rule and what was asked, never a secret.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// The policy refused it.
    #[error("denied by egress rule `{rule}`: {reason}")]
    Denied {
        /// Name of the rule, or `default`.
        rule: String,
        /// What about the request was not allowed.
        reason: String,
    },
    /// The name is allowed, no address it has is.
    #[error("denied by egress rule `{rule}`: {host} is {address}, {reason}")]
    Address {
        /// The rule that allowed the name.
        rule: String,
        /// The host that was asked for.
        host: String,
        /// The first address that was refused.
        address: IpAddr,
        /// What kind of address it is, and what would permit it.
        reason: String,
    },
    /// The rule's `requests_per_second` is used up.
    #[error("egress rule `{rule}` allows {per_second} requests per second")]
    RateLimited {
        /// The rule.
        rule: String,
        /// Its limit.
        per_second: u32,
    },
    /// The response says it is longer than the rule's `response_bytes`.
    #[error("the response has {bytes} bytes, egress rule `{rule}` allows {limit}")]
    ResponseTooLarge {
        /// The rule.
        rule: String,
        /// Announced length.
        bytes: u64,
        /// The rule's limit.
        limit: u64,
    },
    /// The invocation has no subrequest left.
    #[error(transparent)]
    Subrequests(#[from] Exhausted),
    /// The Worker has too many open.
    #[error("the Worker has {limit} requests open already, that is the limit")]
    TooMany {
        /// The most it may have.
        limit: u32,
    },
    /// The name has no address, or the resolver failed.
    #[error("cannot resolve {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// The remote end can't be reached, broke off, or did not answer in time.
    #[error("cannot fetch from {host}: {reason}")]
    Network {
        /// Host and port.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The outbound Worker failed.
    #[error("outbound Worker {worker}: {}", .failure.message())]
    Outbound {
        /// Its name.
        worker: String,
        /// How it failed.
        failure: Failure,
    },
    /// The request makes no sense: not an absolute http or https URI, an impossible host, …
    #[error("not a request that can be sent: {0}")]
    Invalid(String),
}

impl EgressError {
    /// The status the Worker's proxy port answers with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Denied { .. } | Self::Address { .. } => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } | Self::TooMany { .. } | Self::Subrequests(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::ResponseTooLarge { .. }
            | Self::Resolve { .. }
            | Self::Network { .. }
            | Self::Outbound { .. } => StatusCode::BAD_GATEWAY,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "denied",
            Self::Address { .. } => "address_denied",
            Self::RateLimited { .. } => "rate_limited",
            Self::ResponseTooLarge { .. } => "response_too_large",
            Self::TooMany { .. } => "too_many_requests",
            Self::Subrequests(_) => "subrequests_exceeded",
            Self::Resolve { .. } => "resolve_failed",
            Self::Network { .. } => "network_failed",
            Self::Outbound { .. } => "outbound_failed",
            Self::Invalid(_) => "invalid_request",
        }
    }

    /// Whether the filter refused it, rather than tried and failed.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        match self {
            Self::Denied { .. }
            | Self::Address { .. }
            | Self::RateLimited { .. }
            | Self::TooMany { .. }
            | Self::Subrequests(_)
            | Self::Invalid(_) => true,
            Self::ResponseTooLarge { .. }
            | Self::Resolve { .. }
            | Self::Network { .. }
            | Self::Outbound { .. } => false,
        }
    }

    /// Name of the rule that decided, where one did.
    #[must_use]
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Denied { rule, .. }
            | Self::Address { rule, .. }
            | Self::RateLimited { rule, .. }
            | Self::ResponseTooLarge { rule, .. } => Some(rule),
            _ => None,
        }
    }
}

impl From<EgressError> for FetchError {
    fn from(error: EgressError) -> Self {
        match error {
            EgressError::Denied { .. }
            | EgressError::Address { .. }
            | EgressError::RateLimited { .. }
            | EgressError::TooMany { .. } => Self::Denied(error.to_string()),
            EgressError::Subrequests(_) => Self::Subrequests,
            EgressError::ResponseTooLarge { .. }
            | EgressError::Resolve { .. }
            | EgressError::Network { .. } => Self::Network(error.to_string()),
            EgressError::Outbound { failure, .. } => {
                Self::Worker { code: failure.code(), message: error.to_string() }
            }
            EgressError::Invalid(text) => Self::Invalid(text),
        }
    }
}
