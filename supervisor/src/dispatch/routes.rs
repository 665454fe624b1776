//! Which Worker a client's request goes to.

use std::borrow::Cow;
use std::collections::HashMap;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::header;
use http::request::Parts;

use super::Refusal;
use crate::config::{HostPattern, Route, RouteTarget, Routing};
use crate::limits::Limits;
use crate::outcome::Failure;
use crate::registry::{Name, WorkerId};

/// The Worker that answers, and the limits its route sets.
#[derive(Debug, Clone)]
pub struct Routed {
    /// Who.
    pub worker: WorkerId,
    /// Limits of the route.
    pub limits: Limits,
}

/// Numbers of routes.
type ByHost = HashMap<String, Vec<usize>, foldhash::quality::RandomState>;

/// Routes, indexed by host: many routes cost no more than those a host could take.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<(Route, Option<DefaultDirectRateLimiter>)>,
    exact: ByHost,
    /// By suffix with its leading dot.
    label: ByHost,
    any: Vec<usize>,
}

impl Routes {
    /// Indexes routes; their order stays the order of precedence.
    #[must_use]
    pub fn new(routing: Routing) -> Self {
        let mut routes = Self::default();
        for (number, route) in routing.routes.into_iter().enumerate() {
            match &route.host {
                HostPattern::Any => routes.any.push(number),
                HostPattern::Exact(host) => {
                    routes.exact.entry(host.to_ascii_lowercase()).or_default().push(number);
                }
                HostPattern::Label { suffix } => {
                    routes.label.entry(suffix.to_ascii_lowercase()).or_default().push(number);
                }
            }
            let limiter = route.rate_limit.map(|limit| {
                let quota = Quota::per_second(limit.requests_per_second);
                RateLimiter::direct(quota.allow_burst(limit.burst.unwrap_or(limit.requests_per_second)))
            });
            routes.routes.push((route, limiter));
        }
        routes
    }

    /// The first route that takes the request.
    ///
    /// # Errors
    /// None does, or its rate limit is used up.
    pub fn find(&self, request: &Parts) -> Result<Routed, Refusal> {
        let host = host(request);
        let host = host.strip_suffix('.').unwrap_or(host);
        // Almost always lower-case already.
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let dot = host.bytes().position(|byte| byte == b'.');
        let (label, suffix) = dot.and_then(|dot| host.split_at_checked(dot)).unwrap_or_default();
        let none = Vec::new();
        let mut lists = [
            self.exact.get(host.as_ref()).unwrap_or(&none).as_slice(),
            self.label.get(suffix).unwrap_or(&none).as_slice(),
            self.any.as_slice(),
        ];
        while let Some(number) = first(&mut lists) {
            let Some((route, limiter)) = self.routes.get(number) else { break };
            if let Some(label) = takes(route, label, request) {
                if let Some(limiter) = limiter
                    && let Err(until) = limiter.check()
                {
                    let wait = until.wait_time_from(DefaultClock::default().now());
                    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
                    return Err(Refusal { failure: Failure::RateLimited, retry_after: Some(seconds) });
                }
                let worker = worker(&route.target, label).ok_or(Failure::ScriptNotFound)?;
                return Ok(Routed { worker, limits: route.limits });
            }
        }
        Err(Failure::ScriptNotFound.into())
    }
}

/// Takes the lowest number off the fronts of sorted lists.
fn first(lists: &mut [&[usize]; 3]) -> Option<usize> {
    let list = lists.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list.first().copied())?;
    let (first, rest) = list.split_first()?;
    *list = rest;
    Some(*first)
}

/// What its wildcard stands for, when the route takes the request; it was found by the request's host,
/// of which `label` is what stands before the first dot.
fn takes<'h>(route: &Route, label: &'h str, request: &Parts) -> Option<&'h str> {
    let label = match &route.host {
        HostPattern::Any | HostPattern::Exact(_) => "",
        HostPattern::Label { .. } if label.is_empty() => return None,
        HostPattern::Label { .. } => label,
    };
    let headers =
        || route.headers.iter().all(|(name, value)| request.headers.get_all(name).iter().any(|v| v == value));
    (route.path.matches(request.uri.path()) && headers()).then_some(label)
}

fn worker(target: &RouteTarget, label: &str) -> Option<WorkerId> {
    let id = |namespace: Option<&Name>, name: &Name| WorkerId {
        namespace: namespace.map(Name::shared),
        name: name.shared(),
    };
    match target {
        RouteTarget::Dispatch(name) => Some(id(None, name)),
        RouteTarget::Worker { namespace, worker } => Some(id(Some(namespace), &worker.resolve(label)?)),
    }
}

/// The host a request asks for, without its port.
fn host(request: &Parts) -> &str {
    let host = match request.uri.authority() {
        Some(authority) => authority.as_str(),
        None => request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default(),
    };
    // The front door lets no `user@` through.
    let end = match host.as_bytes() {
        [b'[', ..] => host.bytes().position(|byte| byte == b']').map(|at| at + 1),
        _ => host.bytes().position(|byte| byte == b':'),
    };
    end.and_then(|end| host.get(..end)).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::Request;

    use super::*;
    use crate::body::Body;
    use crate::config::Config;

    fn routes(text: &str) -> Routes {
        Routes::new(Config::parse(Path::new("cloister.toml"), text).unwrap().routing)
    }

    fn ask(routes: &Routes, host: &str, path: &str) -> Result<String, Failure> {
        let request = Request::get(path).header("host", host).body(Body::empty()).unwrap();
        routes
            .find(&request.into_parts().0)
            .map(|routed| routed.worker.to_string())
            .map_err(|refusal| refusal.failure)
    }

    #[test]
    fn the_first_route_wins_whatever_its_kind() {
        let routes = routes(
            r#"
            [[route]]
            host = "*.example.com"
            path = "/v1/*"
            worker = "api-{1}"
            namespace = "production"
            [[route]]
            host = "shop.example.com"
            worker = "shop"
            namespace = "production"
            [[route]]
            dispatch = "router"
            "#,
        );
        assert_eq!(ask(&routes, "shop.example.com", "/v1/x").unwrap(), "production/api-shop");
        assert_eq!(ask(&routes, "SHOP.example.com.:8080", "/").unwrap(), "production/shop");
        assert_eq!(ask(&routes, "a.b.example.com", "/v1/x").unwrap(), "router");
        assert_eq!(ask(&routes, "[::1]:80", "/").unwrap(), "router");
        assert_eq!(ask(&routes, "", "/").unwrap(), "router");
    }

    #[test]
    fn a_rate_limit_refuses_and_says_when() {
        let routes = routes(
            r#"
            [[route]]
            dispatch = "router"
            rate_limit = { requests_per_second = 1, burst = 2 }
            "#,
        );
        assert!(ask(&routes, "a", "/").is_ok() && ask(&routes, "a", "/").is_ok());
        assert_eq!(ask(&routes, "a", "/").unwrap_err(), Failure::RateLimited);
    }

    #[test]
    fn no_route_is_not_found() {
        assert_eq!(ask(&Routes::default(), "a", "/").unwrap_err(), Failure::ScriptNotFound);
    }
}
