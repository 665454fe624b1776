//! One hop and nothing else: a hyper front on a current-thread runtime, the supervisor's connection to a Worker,
//! the SDK Worker without walls. For a profiler, and for callgrind, where a whole platform is too much.
//!
//! `cloister-bench-hop PORT PATH-OF-bench-worker` serves on 127.0.0.1:PORT until it is killed.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::Arc;

use cloister_ipc::PROTOCOL;
use cloister_ipc::control::{Control, Start};
use cloister_ipc::limits::CONTROL_BYTES;
use cloister_ipc::worker::{Context, FetchError, Target};
use cloister_supervisor::body::Body;
use cloister_supervisor::egress::{self, Budget};
use cloister_supervisor::registry::WorkerId;
use cloister_supervisor::worker::ipc::{Connection, flush};
use cloister_supervisor::worker::{Answer, Caller};
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(worker)) = (arguments.next(), arguments.next()) else {
        return Err("usage: cloister-bench-hop PORT PATH-OF-bench-worker".into());
    };
    let port: u16 = port.parse()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(flush::at_park).build()?;
    flush::hook();
    runtime.block_on(async {
        let connection = worker_connection(&worker)?;
        if !connection.greeting().await {
            return Err("the Worker said no hello".into());
        }
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let connection = Arc::clone(&connection);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&connection), request));
                drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
            });
        }
    })
}

/// Starts the Worker with one end of a control socket, and opens a stream to it.
fn worker_connection(program: &str) -> Result<Arc<Connection>, Failure> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // The SDK takes no standard descriptor for its control socket.
    Command::new("sh")
        .args(["-c", "exec 3<&0 </dev/null; exec \"$0\"", program])
        .env("CLOISTER_CONTROL_FD", "3")
        .stdin(Stdio::from(theirs))
        .spawn()?;
    let start = Control::Start(Start {
        protocol: PROTOCOL,
        namespace: "bench".into(),
        worker: "hop".into(),
        version: "1".into(),
        env: Vec::new(),
    });
    let record = cloister_ipc::codec::encode(&start, CONTROL_BYTES)?;
    rustix::net::send(&ours, &record, SendFlags::empty())?;
    let ended = |end| {
        eprintln!("the Worker's connection ended: {end:?}");
        std::process::exit(1);
    };
    Ok(Connection::open(0, ours, ended)?)
}

/// On whose behalf the Worker is asked: nobody's, it may fetch nothing.
struct Nobody;

impl Caller for Nobody {
    fn fetch(
        self: Arc<Self>,
        _: Target,
        _: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
        Box::pin(async { Err(FetchError::NotFound) })
    }

    fn egress(&self) -> egress::Caller {
        egress::Caller {
            worker: WorkerId { namespace: Some("bench".into()), name: "hop".into() },
            version: "1".into(),
            ray: "0192f0c1a2b34c5d".into(),
            depth: 1,
            subrequests: Arc::new(Budget::new(Some(0))),
            outbound: None,
            on_behalf_of: None,
        }
    }

    fn context(&self) -> Context {
        Context {
            ray: "0192f0c1a2b34c5d".into(),
            client: "127.0.0.1".into(),
            args: String::new(),
            outbound: None,
        }
    }
}

async fn answer(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    match connection.call(&parts, body.into(), Arc::new(Nobody)).await {
        Ok(Answer::Response(response)) => Ok(response),
        Ok(Answer::Handoff { .. }) | Err(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            Ok(response)
        }
    }
}
