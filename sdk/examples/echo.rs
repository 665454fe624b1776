//! Answers with the request's body, whatever its length, and its type.
//!
//! The body is returned unread, so the platform joins its two ends and its bytes never come here.
//! Under `/through` they do, chunk by chunk, without the whole ever being in memory.

use cloister::{Body, Context, Env, Request, Response};
use http::header::CONTENT_TYPE;

fn main() -> Result<(), cloister::Error> {
    cloister::run(|mut request: Request, _env: Env, _ctx: Context| async move {
        let content_type = request.headers_mut().remove(CONTENT_TYPE);
        let through = request.uri().path().starts_with("/through");
        let body = request.into_body();
        let mut response = Response::new(if through { Body::new(body) } else { body });
        if let Some(content_type) = content_type {
            response.headers_mut().insert(CONTENT_TYPE, content_type);
        }
        response
    })
}
