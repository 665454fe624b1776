//! What the SDK itself costs: a client on the other end of a socket pair keeps a number of requests
//! in flight and counts answers. `cargo bench -p cloister`.
//!
//! Also the system calls a request costs, as counted by the stream: fewer reads by the client than
//! answers mean that answers were corked.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a bench that can't run says so by panicking

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cloister::{Body, Context, Env, Request, Response};
use cloister_ipc::control::{Control, Start};
use cloister_ipc::frame::{self, FrameReader};
use cloister_ipc::limits::CONTROL_BYTES;
use cloister_ipc::worker::{self, FromWorker, HostBody, RequestHead, ToWorker};
use cloister_ipc::{PROTOCOL, codec, descriptors, head};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

const TIME: Duration = Duration::from_secs(1);

fn headers(count: usize) -> HeaderMap {
    const BROWSER: [(&str, &str); 10] = [
        ("host", "customer-a.example.com"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("referer", "https://customer-a.example.com/"),
        ("cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
        ("upgrade-insecure-requests", "1"),
        ("sec-fetch-mode", "navigate"),
        ("cache-control", "max-age=0"),
    ];
    BROWSER[..count]
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// A Worker in a thread of its own; answers the CPU time it used.
fn start<Fut>(
    serve: impl FnOnce(std::os::fd::OwnedFd) -> Fut + Send + 'static,
) -> (impl FnOnce() -> Duration, UnixStream)
where
    Fut: Future<Output = Result<(), cloister::Error>>,
{
    let (control, far) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let worker = std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, serve(far)).unwrap();
        thread_cpu()
    });
    let start = Start {
        protocol: PROTOCOL,
        namespace: String::new(),
        worker: "bench".to_owned(),
        version: "1".to_owned(),
        env: Vec::new(),
    };
    descriptors::send(&control, &codec::encode(&Control::Start(start), CONTROL_BYTES).unwrap(), &[]).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let record = codec::encode(&Control::Connection { id: 0 }, CONTROL_BYTES).unwrap();
    descriptors::send(&control, &record, &[std::os::fd::AsFd::as_fd(&far)]).unwrap();
    let end = move || {
        drop(control);
        worker.join().unwrap()
    };
    (end, near)
}

/// Keeps `flight` requests in flight for a while.
fn drive(name: &str, flight: u64, fields: usize, (end, mut stream): (impl FnOnce() -> Duration, UnixStream)) {
    let head = RequestHead {
        method: "GET".to_owned(),
        uri: "http://customer-a.example.com/products/42?from=home".to_owned(),
        headers: head::encode(&headers(fields)).unwrap(),
    };
    let context = worker::Context {
        ray: "0198c0de-0000-7000-8000-000000000000".to_owned(),
        client: "203.0.113.7".to_owned(),
        ..Default::default()
    };
    let mut message = ToWorker::Request { id: 0, head, context, body: HostBody::Empty };
    let mut output = Vec::new();
    let mut last = 0;
    let mut ask = |output: &mut Vec<u8>| {
        last += 1;
        if let ToWorker::Request { id, .. } = &mut message {
            *id = last;
        }
        frame::append(&message, &[], output).unwrap();
    };
    for _ in 0..flight {
        ask(&mut output);
    }
    let mut reader = FrameReader::new();
    let mut bytes = vec![0; 64 * 1024];
    let (mut answers, mut reads) = (0u64, 0u64);
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        stream.write_all(&output).unwrap();
        output.clear();
        let count = stream.read(&mut bytes).unwrap();
        reads += 1;
        reader.space().extend_from_slice(&bytes[..count]);
        while let Some((message, _)) = reader.next_frame::<FromWorker>().unwrap() {
            if matches!(message, FromWorker::Response { .. }) {
                answers += 1;
                ask(&mut output);
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    drop(stream);
    let cpu = end();
    let answers = answers as f64;
    println!(
        "{name:<24} {flight:>3} in flight, {fields:>2} fields: {:>8.0} req/s, Worker CPU {:>5.2} µs a request, {:>4.1} answers a read",
        answers / seconds,
        cpu.as_secs_f64() * 1e6 / answers,
        answers / reads as f64,
    );
}

async fn hello(_request: Request, _env: Env, _ctx: Context) -> Response {
    Response::new(Body::from("Hello, world!"))
}

async fn pending(_request: Request, _env: Env, _ctx: Context) -> Response {
    tokio::task::yield_now().await;
    Response::new(Body::from("Hello, world!"))
}

fn main() {
    for flight in [1, 32] {
        for fields in [2, 10] {
            drive("closure", flight, fields, start(|control| cloister::run_on(control, hello)));
        }
    }
    drive("closure, pending once", 32, 2, start(|control| cloister::run_on(control, pending)));
    let router =
        axum::Router::new().route("/products/{id}", axum::routing::get(|| async { "Hello, world!" }));
    drive("axum router", 32, 2, start(|control| cloister::serve_on(control, router)));
}
