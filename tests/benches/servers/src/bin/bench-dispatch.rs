//! The dispatch Worker: the first label of the host names the user Worker. `TAIL` = `yes` hands the request on,
//! anything else asks and returns the answer.

#![forbid(unsafe_code)]

use cloister::{BoxError, Context, Env, Options, Request, Response};

fn main() -> Result<(), cloister::Error> {
    cloister::run(answer)
}

async fn answer(request: Request, env: Env, _: Context) -> Result<Response, BoxError> {
    let host = request.headers().get("host").and_then(|host| host.to_str().ok());
    let name = host.or(request.uri().host()).and_then(|host| host.split('.').next()).ok_or("no host")?;
    let worker = env.dispatcher("DISPATCHER")?.get(name, Options::default());
    if env.var("TAIL")? == "yes" { Ok(worker.tail(request)?) } else { Ok(worker.fetch(request).await?) }
}
