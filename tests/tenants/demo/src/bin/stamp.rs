//! An outbound Worker: what user Workers ask of the outside, where the policy says `outbound`, comes here
//! first. It says for which customer a request is made, and makes it.
#![forbid(unsafe_code)]

use cloister::{Body, BoxError, Context, Env, Request, Response};
use http::StatusCode;

async fn stamp(mut request: Request, _env: Env, context: Context) -> Result<Response, BoxError> {
    let Some(customer) =
        context.outbound().and_then(|outbound| outbound.param::<String>("customer").transpose())
    else {
        let mut answer = Response::new(Body::from("asked for no customer\n"));
        *answer.status_mut() = StatusCode::FORBIDDEN;
        return Ok(answer);
    };
    request.headers_mut().insert("x-customer", customer?.parse()?);
    Ok(cloister::fetch(request).await?)
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(stamp)
}
