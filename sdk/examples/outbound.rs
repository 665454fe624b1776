//! An outbound Worker: every outgoing request of the user Workers passes here before it leaves.
//!
//! It tells the other side who asks (`x-outbound: customer-a`), refuses the hosts in the JSON
//! binding `BLOCKED` (`["blocked.example"]`) with 403, and logs each request on its standard
//! output.

use cloister::{BindingError, Body, BoxError, Context, Env, Request, Response};
use http::{HeaderValue, StatusCode};

async fn outbound(mut request: Request, env: Env, ctx: Context) -> Result<Response, BoxError> {
    let Some(caller) = ctx.outbound() else {
        let mut response = Response::new(Body::from("this is an outbound Worker: it serves no visitors\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    };
    let blocked: Vec<String> = match env.json("BLOCKED") {
        Err(BindingError::Missing(_)) => Vec::new(),
        other => other?,
    };
    let host = request.uri().host().unwrap_or_default().to_ascii_lowercase();
    println!("{}/{} asks {} {}", caller.namespace(), caller.worker(), request.method(), request.uri());
    if blocked.contains(&host) {
        let mut response = Response::new(Body::from(format!("{host} is blocked by your platform\n")));
        *response.status_mut() = StatusCode::FORBIDDEN;
        return Ok(response);
    }
    request.headers_mut().insert("x-outbound", HeaderValue::from_str(caller.worker())?);
    // Its own fetch is judged by the egress policy again. Both bodies pass unread.
    Ok(cloister::fetch(request).await?)
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(outbound)
}
