//! Contract `ipc`: does what the path says, well or badly. The twin of `http/server.c`.
//!
//! ```text
//! /              hello and the count of this process's requests
//! /env/NAME      a plain_text binding            /secret/NAME, /json/NAME   the other kinds
//! /context       who and what, as JSON
//! /echo          the body, unread                /through   the body, chunk by chunk
//! /length        bytes of the body and their sum modulo 2^32
//! /bytes/N       a streamed body of N bytes      /trailers  a body with trailers
//! /chunks/N      N chunks, 10 ms apart           /cut       a body that fails in the middle
//! /sleep/MS  /burn/MS  /spin  /allocate/MB  /hang  /panic  /error  /exit
//! /fetch?URL     fetches; status and body are passed on; errors as 599 and their text
//! /stamp         as an outbound Worker: adds x-stamp, x-for and the parameter `tag`, fetches
//! /many/N?URL    fetches N times, tells how many of each kind
//! /post?URL      fetches with the request's own body
//! /dispatch/NAME/PATH    asks a user Worker by the binding NS (limits by header `limits`, as JSON)
//! /tail/NAME/PATH        hands over to it
//! /service/PATH          asks the binding OTHER
//! /later         answers, then goes on for 1 s; /count tells how many of these have ended
//! /websocket     echoes
//! ```
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::convert::Infallible;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloister::{Body, BoxError, Context, Env, FetchError, Limits, Options, Request, Response};
use futures_util::{SinkExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// Answer of a fetch that got none.
const NO_ANSWER: u16 = 599;

#[derive(Default)]
struct State {
    requests: Cell<u32>,
    later: Arc<AtomicU32>,
}

fn text(text: impl Into<String>) -> Response {
    Response::new(Body::from(Bytes::from(text.into())))
}

fn status(status: u16, said: impl Into<String>) -> Result<Response, BoxError> {
    let mut response = text(said);
    *response.status_mut() = StatusCode::from_u16(status)?;
    Ok(response)
}

fn passed_on(result: Result<Response, FetchError>) -> Result<Response, BoxError> {
    match result {
        Ok(response) => Ok(response),
        Err(error) => status(NO_ANSWER, format!("{error:?}: {error}")),
    }
}

fn block(length: usize) -> Bytes {
    Bytes::from(vec![b'x'; length])
}

fn streamed(mut left: usize) -> Body {
    let frames = std::iter::from_fn(move || {
        let length = left.min(64 << 10);
        left -= length;
        (length > 0).then(|| Ok::<_, Infallible>(Frame::data(block(length))))
    });
    Body::new(StreamBody::new(stream::iter(frames)))
}

/// Burns this much CPU time; the only thread does nothing else meanwhile.
fn burn(time: Option<Duration>) {
    let begin = Instant::now();
    let mut number = 0_u64;
    while time.is_none_or(|time| begin.elapsed() < time) {
        for _ in 0..1000 {
            number = black_box(number.wrapping_add(1));
        }
    }
}

fn options(request: &Request) -> Result<Options, BoxError> {
    let mut options = Options::default();
    if let Some(given) = request.headers().get("limits") {
        let given: Value = serde_json::from_slice(given.as_bytes())?;
        let number = |key: &str| given[key].as_u64().and_then(|number| u32::try_from(number).ok());
        options.limits = Limits {
            cpu_ms: number("cpu_ms"),
            subrequests: number("subrequests"),
            wall_ms: number("wall_ms"),
        };
    }
    if let Some(args) = request.headers().get("args") {
        options.args = Some(serde_json::from_slice(args.as_bytes())?);
    }
    if let Some(tag) = request.headers().get("tag") {
        options.outbound.insert("tag".to_owned(), json!(tag.to_str()?));
    }
    Ok(options)
}

/// The request with another path, its host kept.
fn moved(request: Request, path: &str) -> Result<Request, BoxError> {
    let (mut parts, body) = request.into_parts();
    let host = parts.headers.get(header::HOST).map_or(Ok("worker.test"), HeaderValue::to_str)?;
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    parts.uri = format!("http://{host}/{path}{query}").parse()?;
    Ok(Request::from_parts(parts, body))
}

async fn answer(
    state: Rc<State>,
    mut request: Request,
    env: Env,
    context: Context,
) -> Result<Response, BoxError> {
    state.requests.set(state.requests.get() + 1);
    let path = request.uri().path().to_owned();
    let (first, rest) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let url = request.uri().query().unwrap_or_default().to_owned();
    let millis = || rest.parse().map(Duration::from_millis);
    match first {
        "" => Ok(text(format!("hello {}\n", state.requests.get()))),
        "env" => Ok(text(env.var(rest)?)),
        "secret" => Ok(text(env.secret(rest)?)),
        "json" => Ok(text(env.json::<Value>(rest)?.to_string())),
        "context" => {
            let outbound =
                context.outbound().map(|o| json!({ "namespace": o.namespace(), "worker": o.worker() }));
            Ok(text(
                json!({
                    "worker": context.worker(), "namespace": context.namespace(), "version": context.version(),
                    "ray": context.ray(), "args": context.args::<Value>()?, "outbound": outbound,
                    "client": context.client_ip().map(|ip| ip.to_string()),
                    "uri": request.uri().to_string(), "method": request.method().as_str(),
                    "headers": request.headers().iter()
                        .map(|(name, value)| (name.to_string(), json!(String::from_utf8_lossy(value.as_bytes()))))
                        .collect::<serde_json::Map<_, _>>(),
                })
                .to_string(),
            ))
        }
        "echo" => Ok(Response::new(request.into_body())),
        "through" => Ok(Response::new(Body::new(request.into_body()))),
        "length" => {
            let mut body = request.into_body();
            let (mut length, mut sum, mut trailers) = (0_u64, 0_u32, 0);
            while let Some(frame) = body.frame().await {
                match frame?.into_data() {
                    Ok(data) => {
                        length += data.len() as u64;
                        sum = data.iter().fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
                    }
                    Err(frame) => trailers += frame.trailers_ref().map_or(0, HeaderMap::len),
                }
            }
            Ok(text(format!("{length} {sum} {trailers}\n")))
        }
        "bytes" => Ok(Response::new(streamed(rest.parse()?))),
        "chunks" => {
            let chunks = stream::iter(0..rest.parse::<u32>()?).then(|_| async {
                tokio::time::sleep(Duration::from_millis(10)).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"chunk\n")))
            });
            Ok(Response::new(Body::new(StreamBody::new(chunks))))
        }
        "trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("42"));
            let frames = [Frame::data(block(100_000)), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
            let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
            response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-sum"));
            Ok(response)
        }
        "cut" => {
            let frames = [Ok(Frame::data(block(100_000))), Err(std::io::Error::other("cut as told"))];
            Ok(Response::new(Body::new(StreamBody::new(stream::iter(frames)))))
        }
        "sleep" => {
            tokio::time::sleep(millis()?).await;
            Ok(text("slept\n"))
        }
        "burn" => {
            burn(Some(millis()?));
            Ok(text("burnt\n"))
        }
        "spin" => {
            burn(None);
            Ok(text("never\n"))
        }
        "allocate" => {
            let memory = vec![1_u8; rest.parse::<usize>()? << 20];
            Ok(text(format!("{}\n", black_box(memory).len())))
        }
        "hang" => std::future::pending().await,
        #[expect(clippy::panic, reason = "that is what was asked for")]
        "panic" => panic!("as told"),
        "error" => Err("an error, as told".into()),
        "exit" => std::process::exit(3),
        "fetch" => passed_on(cloister::fetch(Request::get(url).body(Body::empty())?).await),
        "post" => passed_on(cloister::fetch(Request::post(url).body(request.into_body())?).await),
        "many" => {
            let mut counts = serde_json::Map::new();
            for _ in 0..rest.parse::<u32>()? {
                let kind = match cloister::fetch(Request::get(&url).body(Body::empty())?).await {
                    Ok(response) => response.status().as_str().to_owned(),
                    Err(error) => {
                        format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
                    }
                };
                let count = counts.get(&kind).and_then(Value::as_u64).unwrap_or(0);
                counts.insert(kind, json!(count + 1));
            }
            Ok(text(Value::Object(counts).to_string()))
        }
        "dispatch" | "tail" => {
            let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
            let fetcher = env.dispatcher("NS")?.get(name, options(&request)?);
            let moved = moved(request, path)?;
            if first == "tail" { Ok(fetcher.tail(moved)?) } else { passed_on(fetcher.fetch(moved).await) }
        }
        "service" => {
            let fetcher = env.service("OTHER")?;
            passed_on(fetcher.fetch(moved(request, rest)?).await)
        }
        "later" => {
            let ended = Arc::clone(&state.later);
            context.wait_until(async move {
                tokio::time::sleep(Duration::from_millis(1000)).await;
                ended.fetch_add(1, Ordering::Relaxed);
            });
            Ok(text("later\n"))
        }
        "count" => Ok(text(format!("{}\n", state.later.load(Ordering::Relaxed)))),
        "websocket" => websocket(&mut request, &context),
        _ if context.outbound().is_some() => stamp(request, &context).await,
        _ => status(404, "no such path\n"),
    }
}

/// What an outbound Worker does with a request it is asked to make.
async fn stamp(mut request: Request, context: &Context) -> Result<Response, BoxError> {
    let outbound = context.outbound().ok_or("not called as an outbound Worker")?;
    let tag = outbound.param::<String>("tag")?.unwrap_or_default();
    let caller = format!("{}/{}", outbound.namespace(), outbound.worker());
    let headers = request.headers_mut();
    headers.insert("x-stamp", HeaderValue::from_static("stamped"));
    headers.insert("x-for", caller.parse()?);
    headers.insert("x-tag", tag.parse()?);
    passed_on(cloister::fetch(request).await)
}

fn websocket(request: &mut Request, context: &Context) -> Result<Response, BoxError> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).ok_or("no WebSocket asked for")?;
    let accept = derive_accept_key(key.as_bytes());
    let upgrade = cloister::upgrade(request)?;
    context.wait_until(async move {
        let Ok(tunnel) = upgrade.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(tunnel, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                break;
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse()?);
    Ok(response)
}

fn main() -> Result<(), cloister::Error> {
    let state = Rc::new(State::default());
    cloister::run(move |request, env, context| answer(Rc::clone(&state), request, env, context))
}
