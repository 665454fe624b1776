//! Load made where the asker sits: an HTTP server that, when asked, sends requests out through the
//! proxy named in `HTTP_PROXY` (or directly, when there is none) and tells how that went.
//!
//! `GET /run/CONNECTIONS/MILLISECONDS/ORIGIN/PATH` asks `http://ORIGIN/PATH` in a closed loop on that many
//! connections and answers `{"requests":…,"errors":…,"duration_us":…,"p50_us":…,"p99_us":…}`. Runs unmodified
//! as an `http` Worker, and outside of any sandbox beside another proxy.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloister_bench_servers::listen;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Most connections of one run.
const MOST_CONNECTIONS: usize = 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> std::io::Result<()> {
    let place = match (std::env::args().nth(1), std::env::var("PORT")) {
        (Some(place), _) => place,
        (None, Ok(port)) => format!("tcp:127.0.0.1:{port}"),
        (None, Err(_)) => return Err(std::io::Error::other("usage: bench-load PLACE, or PORT set")),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, listen::serve(&place, answer))
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match Run::parse(request.uri().path()) {
        None => (StatusCode::NOT_FOUND, "GET /run/CONNECTIONS/MILLISECONDS/ORIGIN/PATH\n".into()),
        Some(run) => (StatusCode::OK, run.drive().await),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}

/// One run, as it was asked for.
#[derive(Debug, Clone)]
struct Run {
    connections: usize,
    duration: Duration,
    /// `HOST:PORT` of the origin.
    origin: String,
    path: String,
    /// Where to connect: the proxy, or the origin.
    peer: String,
    /// What stands in the request line.
    target: String,
}

impl Run {
    fn parse(path: &str) -> Option<Self> {
        let mut parts = path.strip_prefix("/run/")?.splitn(4, '/');
        let connections = parts.next()?.parse().ok().filter(|n| (1..=MOST_CONNECTIONS).contains(n))?;
        let duration = Duration::from_millis(parts.next()?.parse().ok()?);
        let origin = parts.next()?.to_owned();
        let path = format!("/{}", parts.next().unwrap_or_default());
        let proxy = std::env::var("HTTP_PROXY").ok();
        let peer =
            proxy.as_deref().and_then(|url| url.strip_prefix("http://")).map(|p| p.trim_end_matches('/'));
        let target = if peer.is_some() { format!("http://{origin}{path}") } else { path.clone() };
        let peer = peer.unwrap_or(&origin).to_owned();
        Some(Self { connections, duration, origin, path, peer, target })
    }

    async fn drive(self) -> String {
        let start = Instant::now();
        let end = start + self.duration;
        let tasks: Vec<_> =
            (0..self.connections).map(|_| tokio::task::spawn_local(closed_loop(self.clone(), end))).collect();
        let (mut taken, mut errors, mut last) = (Vec::new(), 0_u64, String::new());
        for task in tasks {
            let Ok(outcome) = task.await else { continue };
            taken.extend(outcome.taken);
            errors += outcome.errors;
            last = outcome.last_error.unwrap_or(last);
        }
        taken.sort_unstable();
        let at = |percent: usize| taken.get((taken.len() * percent / 100).min(taken.len().saturating_sub(1)));
        let (p50, p99) = (at(50).copied().unwrap_or_default(), at(99).copied().unwrap_or_default());
        let last: String = last.chars().filter(|c| !matches!(c, '"' | '\\') && !c.is_control()).collect();
        format!(
            r#"{{"requests":{},"errors":{errors},"duration_us":{},"p50_us":{p50},"p99_us":{p99},"last_error":"{last}"}}"#,
            taken.len(),
            start.elapsed().as_micros(),
        )
    }
}

#[derive(Debug, Default)]
struct Outcome {
    /// Microseconds of each good answer.
    taken: Vec<u64>,
    errors: u64,
    last_error: Option<String>,
}

async fn closed_loop(run: Run, end: Instant) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sender = None;
    while Instant::now() < end {
        let start = Instant::now();
        match once(&run, &mut sender).await {
            Ok(()) => outcome.taken.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(error) => {
                outcome.errors += 1;
                outcome.last_error = Some(error.to_string());
                sender = None;
                // A door that is shut is not beaten on at full speed.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    outcome
}

type Sender = SendRequest<Empty<Bytes>>;

/// One request, on the kept connection if there is one. A proxy may close after any answer: a request
/// that meets a closed connection is sent again on a new one, as every client does with a GET.
async fn once(run: &Run, kept: &mut Option<Sender>) -> Result<(), Failure> {
    if let Some(mut sender) = kept.take() {
        let answered = sender.ready().await.is_ok() && ask(run, &mut sender).await.is_ok();
        if answered {
            *kept = Some(sender);
            return Ok(());
        }
    }
    let stream = TcpStream::connect(&run.peer).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    ask(run, &mut sender).await?;
    *kept = Some(sender);
    Ok(())
}

async fn ask(run: &Run, sender: &mut Sender) -> Result<(), Failure> {
    let request = Request::get(&run.target).header("host", &run.origin).body(Empty::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        drop(frame?);
    }
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(format!("{} answered {status} for {}", run.peer, run.path).into())
}
