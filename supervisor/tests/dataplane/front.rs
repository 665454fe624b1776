//! The front door on a shard of its own, spoken to by bytes.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use cloister::{Body as WorkerBody, Request as WorkerRequest};
use cloister_supervisor::config::Config;
use cloister_supervisor::front;
use cloister_supervisor::registry::Deployed;
use cloister_supervisor::runtime::{Listeners, Shards};
use http::Response;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::double::{Plane, worker};

/// Starts a shard; the returned address leads to the Worker `seen`, which tells what it got, to `reads`, which
/// reads its request's body, and to `floods`, whose answers have no end.
fn start(options: front::Options) -> (Shards, std::net::SocketAddr) {
    let plane = Plane::new();
    plane.sdk(worker("reads"), |request: WorkerRequest, _, _| async move {
        let body = request.into_body().collect().await?.to_bytes();
        Ok(Response::new(WorkerBody::from(format!("{} bytes", body.len()))))
    });
    plane.sdk(Deployed { concurrency: 1, ..worker("floods") }, |_, _, _| async move {
        let frame =
            || Ok::<_, cloister::BoxError>(http_body::Frame::data(bytes::Bytes::from(vec![0; 1 << 16])));
        let frames = futures_util::stream::iter(std::iter::repeat_with(frame));
        Ok(Response::new(WorkerBody::new(http_body_util::StreamBody::new(frames))))
    });
    plane.sdk(worker("seen"), |request: WorkerRequest, _, _| async move {
        let mut text = format!("{}\n", request.uri());
        for (name, value) in request.headers() {
            text.push_str(&format!("{name}: {}\n", value.to_str()?));
        }
        Ok(Response::new(WorkerBody::from(text)))
    });
    let route = |(host, worker)| format!("[[route]]\nhost = \"{host}.test\"\ndispatch = \"{worker}\"\n");
    let text: String = [("a", "seen"), ("reads", "reads"), ("floods", "floods")].map(route).concat();
    plane.dispatcher.set_routing(Config::parse("c.toml".as_ref(), &text).unwrap().routing);
    let mut listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()], NonZeroUsize::MIN).unwrap();
    let address = listeners.addresses()[0];
    let taken = Arc::new(Mutex::new(listeners.take(0)));
    let dispatcher = plane.dispatcher;
    let shards = Shards::start(NonZeroUsize::MIN, move |shard| {
        let listeners = std::mem::take(&mut *taken.lock().unwrap());
        let serving = front::serve(listeners, dispatcher.clone(), options, shard.stop);
        async move { serving.await.unwrap() }
    });
    (shards.unwrap(), address)
}

async fn say(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// An h2 client that takes so many bytes of an answer before it is read.
async fn h2(address: std::net::SocketAddr, window: u32) -> SendRequest<Empty<bytes::Bytes>> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.initial_stream_window_size(window).handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

#[test]
fn what_clients_say_is_made_fit_for_workers_and_the_end_waits_for_nobody_idle() {
    let (shards, address) = start(front::Options::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let forged = "GET /x?y HTTP/1.1\r\nhost: A.test:80\r\nconnection: close, x-mine\r\nx-mine: 1\r\n\
                      x-forwarded-for: 1.2.3.4\r\ncloister-dispatch: victim\r\nx-kept: 1\r\n\r\n";
        let answer = say(address, forged).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("\r\ncloister-ray: "), "{answer}");
        assert!(answer.contains("http://A.test:80/x?y\n"), "{answer}");
        assert!(answer.contains("x-forwarded-for: 127.0.0.1\n"), "{answer}");
        assert!(answer.contains("traceparent: 00-") && answer.contains("x-kept: 1"), "{answer}");
        for gone in ["x-mine", "victim", "1.2.3.4", "\nconnection:"] {
            let seen = answer.split_once("\r\n\r\n").unwrap().1;
            assert!(!seen.contains(gone), "{gone} in {seen}");
        }
        let missing = say(address, "GET / HTTP/1.1\r\nhost: b.test\r\nconnection: close\r\n\r\n").await;
        assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("cloister-error: 1042"), "{missing}");
        for bad in [
            "GET / HTTP/1.1\r\nhost: a.test\r\nhost: b.test\r\nconnection: close\r\n\r\n",
            "GET http://b.test/ HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: u@a.test\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a.test:x\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a.test:99999\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: [::1]:x\r\nconnection: close\r\n\r\n",
            "GET * HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n",
        ] {
            let answer = say(address, bad).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{bad}: {answer}");
        }
        let server = say(address, "OPTIONS * HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n").await;
        assert!(server.starts_with("HTTP/1.1 204"), "{server}");
        // A wish to switch that nobody said to this connection: what follows would go to the Worker unseen.
        for (unasked, version) in [
            ("GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\nupgrade: websocket\r\n\r\n", "1.1"),
            ("GET / HTTP/1.0\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "1.0"),
            (
                "POST / HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
                "1.1",
            ),
        ] {
            let answer = say(address, unasked).await;
            assert!(answer.starts_with(&format!("HTTP/{version} 200")), "{answer}");
            assert!(!answer.contains("websocket"), "{answer}");
        }
        // h2 sends a cookie's crumbs one by one.
        let mut sender = h2(address, 1 << 16).await;
        let request = http::Request::get("http://a.test/").header("cookie", "a=1").header("x", "1");
        let request = request.header("cookie", "b=2").header("x", "2").header("cookie", "c=3");
        let answer = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
        let seen = answer.into_body().collect().await.unwrap().to_bytes();
        let seen = std::str::from_utf8(&seen).unwrap();
        assert!(seen.contains("cookie: a=1; b=2; c=3\n") && seen.contains("x: 1\nx: 2\n"), "{seen}");
        drop(sender);
        let idle = TcpStream::connect(address).await.unwrap();
        shards.stop();
        tokio::task::spawn_blocking(move || shards.join().unwrap()).await.unwrap();
        drop(idle);
        assert!(TcpStream::connect(address).await.is_err());
    });
}

#[test]
fn who_sends_no_more_or_reads_no_more_is_not_waited_for() {
    let idle = std::time::Duration::from_millis(400);
    let (shards, address) = start(front::Options { idle, ..front::Options::default() });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // A body that comes in time, piece by piece, longer than the limit in all.
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: reads.test\r\nconnection: close\r\ncontent-length: 6\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..6 {
            tokio::time::sleep(idle / 4).await;
            stream.write_all(b"x").await.unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("6 bytes"), "{text}");
        // One that stops.
        let answer = say(address, head).await;
        assert!(!answer.contains("bytes") && answer.starts_with("HTTP/1.1 5"), "{answer}");
        // An answer that nobody reads: the connection ends, and what was on its way with it.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: floods.test\r\n\r\n").await.unwrap();
        let ended = async {
            loop {
                let ready = stream.ready(tokio::io::Interest::WRITABLE).await.unwrap();
                if ready.is_write_closed() || stream.try_write(b" ").is_err() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), ended).await.expect("it is kept for ever");
        // The same over h2, where the socket takes all and only the stream is held back: its Worker, which has
        // one place, is free again for somebody else.
        let mut sender = h2(address, 0).await;
        let request = http::Request::get("http://floods.test/").body(Empty::new());
        let unread = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(unread.status(), 200);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: floods.test\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        let answered = tokio::time::timeout(std::time::Duration::from_secs(8), stream.read_exact(&mut head));
        answered.await.expect("the Worker is never free again").unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        drop((unread, stream));
        shards.stop();
        tokio::task::spawn_blocking(move || shards.join().unwrap()).await.unwrap();
    });
}
