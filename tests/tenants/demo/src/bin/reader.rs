//! A user Worker that fetches what its query says (`/?http://...`) and shows what came.
#![forbid(unsafe_code)]

use cloister::{Body, BoxError, Context, Env, Request, Response};
use http::StatusCode;

async fn read(request: Request, _env: Env, _context: Context) -> Result<Response, BoxError> {
    let url = request.uri().query().unwrap_or_default();
    match cloister::fetch(Request::get(url).body(Body::empty())?).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let mut answer = Response::new(Body::from(format!("{error}\n")));
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            Ok(answer)
        }
    }
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(read)
}
