//! Routes: which Worker answers a request.

use http::{HeaderName, HeaderValue};

use super::pattern::{HostPattern, NameTemplate, PathPattern};
use crate::limits::Limits;
use crate::registry::Name;

/// All routes, in the file's order; the first that matches wins.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    /// The routes.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Host names it takes.
    pub host: HostPattern,
    /// Paths it takes.
    pub path: PathPattern,
    /// Header fields a request must have, each with exactly this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who answers.
    pub target: RouteTarget,
    /// Limits of the invocation, besides the Worker's own.
    pub limits: Limits,
    /// Rate limit of the route.
    pub rate_limit: Option<RateLimit>,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// A Worker of the account: a dispatch Worker that finds the user Worker by its own code.
    Dispatch(Name),
    /// A user Worker directly; one hop.
    Worker {
        /// Its dispatch namespace.
        namespace: Name,
        /// Its name.
        worker: NameTemplate,
    },
}

/// Rate limit of a route, over all of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second, at least 1.
    pub requests_per_second: std::num::NonZeroU32,
    /// Requests that may come at once, at least 1; default: one second's worth.
    pub burst: Option<std::num::NonZeroU32>,
}
