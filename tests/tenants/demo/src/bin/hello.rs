//! A user Worker that greets.
#![forbid(unsafe_code)]

use cloister::{Body, BoxError, Context, Env, Request, Response};

async fn hello(request: Request, env: Env, context: Context) -> Result<Response, BoxError> {
    let greeting = env.var("GREETING").unwrap_or("hello");
    let plan = context.args::<serde_json::Value>()?.unwrap_or_default();
    let path = request.uri().path();
    Ok(Response::new(Body::from(format!(
        "{greeting} from {}, plan {}, path {path}\n",
        context.worker(),
        plan["plan"]
    ))))
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(hello)
}
