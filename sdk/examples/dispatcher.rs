//! A dispatch Worker: `customer-a.example.com` is answered by the user Worker `customer-a`.
//!
//! Bindings:
//! * `DISPATCHER`, `dispatch_namespace`: where the user Workers are;
//! * `PLANS`, `json`, optional: limits by customer, `{"customer-a": {"cpu_ms": 50}}`; the entry
//!   `"*"` is for everybody else;
//! * `OUTBOUND`, `json`, optional: parameters for the outbound Worker, `{"plan": "free"}`; the
//!   `DISPATCHER` binding must declare their names;
//! * `TAIL`, `plain_text`, optional: `"1"` lets user Workers answer the client directly. That is
//!   the quickest way, but their answers can't be changed here.

use std::collections::{BTreeMap, HashMap};

use cloister::{BindingError, Body, BoxError, Context, Env, FetchError, Limits, Options, Request, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Plan {
    cpu_ms: Option<u32>,
    wall_ms: Option<u32>,
    subrequests: Option<u32>,
}

/// A JSON binding that may be missing.
fn optional<T: serde::de::DeserializeOwned + Default>(env: &Env, name: &str) -> Result<T, BindingError> {
    match env.json(name) {
        Err(BindingError::Missing(_)) => Ok(T::default()),
        other => other,
    }
}

/// First label of the host that was asked for.
fn customer(request: &Request) -> Option<String> {
    let host = request.uri().host().or_else(|| request.headers().get(header::HOST)?.to_str().ok())?;
    let label = host.split(['.', ':']).next()?;
    (!label.is_empty()).then(|| label.to_ascii_lowercase())
}

fn page(status: StatusCode, text: &str) -> Response {
    let mut response =
        Response::new(Body::from(format!("<!doctype html><title>{status}</title><h1>{text}</h1>\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

async fn dispatch(request: Request, env: Env, _ctx: Context) -> Result<Response, BoxError> {
    let Some(name) = customer(&request) else {
        return Ok(page(StatusCode::BAD_REQUEST, "Which customer?"));
    };
    let plans: HashMap<String, Plan> = optional(&env, "PLANS")?;
    let plan = plans.get(&name).or_else(|| plans.get("*")).copied().unwrap_or_default();
    let outbound: BTreeMap<String, serde_json::Value> = optional(&env, "OUTBOUND")?;
    let options = Options {
        limits: Limits { cpu_ms: plan.cpu_ms, wall_ms: plan.wall_ms, subrequests: plan.subrequests },
        outbound,
        ..Options::default()
    };
    let worker = env.dispatcher("DISPATCHER")?.get(&name, options);
    if env.var("TAIL").is_ok_and(|tail| tail == "1") {
        return Ok(worker.tail(request)?);
    }
    match worker.fetch(request).await {
        // The body is passed on unread: its bytes don't come here.
        Ok(mut response) => {
            let value = HeaderValue::from_str(&name)?;
            response.headers_mut().insert("x-dispatched-to", value);
            Ok(response)
        }
        Err(FetchError::NotFound) => Ok(page(StatusCode::NOT_FOUND, "There is no such customer.")),
        // The platform answers for a Worker that failed: with the code of its failure.
        Err(error) => Err(error.into()),
    }
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(dispatch)
}
