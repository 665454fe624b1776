//! A dispatch Worker: the first label of the host is the customer, whose Worker answers.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use cloister::{Body, BoxError, Context, Env, Limits, Options, Request, Response};
use http::{StatusCode, header};
use serde_json::json;

async fn route(request: Request, env: Env, _context: Context) -> Result<Response, BoxError> {
    let host = request.headers().get(header::HOST).map_or(Ok(""), |host| host.to_str())?;
    let Some((customer, _)) = host.split_once('.') else {
        let mut answer = Response::new(Body::from(format!("{host:?} names no customer\n")));
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(answer);
    };
    let options = Options {
        // What this customer's plan allows for each request.
        limits: Limits { cpu_ms: Some(100), subrequests: Some(10), ..Limits::default() },
        args: Some(json!({ "plan": "free" })),
        // For the outbound Worker.
        outbound: BTreeMap::from([("customer".to_owned(), json!(customer))]),
    };
    // The customer's Worker answers in this one's place; a failure is told by the platform.
    Ok(env.dispatcher("CUSTOMERS")?.get(customer, options).tail(request)?)
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(route)
}
