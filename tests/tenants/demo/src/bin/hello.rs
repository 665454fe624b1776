//! A user Worker that greets.
#![forbid(unsafe_code)]

use cloister::{Body, BoxError, Context, Env, Request, Response};

async fn hello(request: Request, env: Env, context: Context) -> Result<Response, BoxError> {
    let greeting = env.var("GREETING").unwrap_or("hello");
    // What the dispatch Worker gave; nothing, by a plain route.
    let args = context.args::<serde_json::Value>()?.unwrap_or_default();
    let plan = args["plan"].as_str().unwrap_or("none");
    let path = request.uri().path();
    let text = format!("{greeting} from {}, plan {plan}, path {path}\n", context.worker());
    Ok(Response::new(Body::from(text)))
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(hello)
}
