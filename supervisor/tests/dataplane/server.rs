//! Workers of the `http` contract: what they ask for through their proxy port.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cloister_supervisor::limits::Limits;
use cloister_supervisor::outcome::Failure;
use cloister_supervisor::registry::{Binding, Contract, Deployed};
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::double::{Life, Plane, account, get, text, worker};

/// Deploys a server that can call the Worker `other` as `http://other.cloister/`.
fn server<F, Fut>(plane: &Plane, name: &str, other: &str, program: F)
where
    F: Fn(SocketAddr, Life) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let bindings = [("OTHER".to_owned(), Binding::Service { service: other.into() })].into_iter().collect();
    let limits = Limits { subrequests: Some(3), ..Limits::default() };
    let deployed = Deployed { contract: Contract::Http, bindings, limits, ..worker(name) };
    plane.deploy_server(deployed, Arc::new(move |proxy, life| Box::pin(program(proxy, life))));
}

/// Reads up to the empty line.
async fn head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Fetches through a proxy port: the status.
async fn fetch(proxy: SocketAddr, uri: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("GET {uri} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

async fn listen(life: &Life) -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    life.listening.send_replace(listener.local_addr().ok());
    listener
}

/// The limit of a call holds while its answer's body is written, and for what comes after it.
#[tokio::test]
async fn a_calls_subrequests_end_neither_with_the_head_of_its_answer_nor_with_the_answer() {
    let plane = Plane::new();
    let (sender, mut afterwards) = tokio::sync::mpsc::unbounded_channel();
    let over = Arc::new(tokio::sync::Notify::new());
    let seen = over.clone();
    plane.sdk(worker("other"), |_, _, _| async move { Ok(Response::new("fine".into())) });
    server(&plane, "streams", "other", move |proxy, life| {
        let (sender, seen) = (sender.clone(), seen.clone());
        async move {
            let listener = listen(&life).await;
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await.unwrap();
            for _ in 0..2 {
                let status = fetch(proxy, "http://other.cloister/").await.unwrap();
                stream.write_all(format!("{status} ").as_bytes()).await.unwrap();
            }
            drop(stream);
            // The supervisor saw the end of the answer.
            seen.notified().await;
            for _ in 0..2 {
                sender.send(fetch(proxy, "http://other.cloister/").await.unwrap()).unwrap();
            }
            std::future::pending().await
        }
    });
    // Lower than the Worker's own.
    let limits = Limits { subrequests: Some(1), ..Limits::default() };
    let answer = plane.ask_within("streams", get("http://a/"), limits).await.unwrap();
    assert_eq!(text(answer).await, "200 502 ");
    while plane.invocations(&account("streams")).is_empty() {
        tokio::task::yield_now().await;
    }
    over.notify_one();
    for _ in 0..2 {
        assert_eq!(afterwards.recv().await.unwrap(), "502");
    }
    assert_eq!(plane.invocations(&account("other")).len(), 1);
}

/// What is left of a call's budget may be used after it.
#[tokio::test]
async fn what_a_call_left_of_its_subrequests_is_there_after_it() {
    let plane = Plane::new();
    let (sender, mut afterwards) = tokio::sync::mpsc::unbounded_channel();
    plane.sdk(worker("other"), |_, _, _| async move { Ok(Response::new("fine".into())) });
    server(&plane, "later", "other", move |proxy, life| {
        let sender = sender.clone();
        async move {
            let listener = listen(&life).await;
            let (mut stream, _) = listener.accept().await.unwrap();
            head(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            for _ in 0..4 {
                sender.send(fetch(proxy, "http://other.cloister/").await.unwrap()).unwrap();
            }
            std::future::pending().await
        }
    });
    plane.ask("later", get("http://a/")).await.unwrap();
    for expected in ["200", "200", "200", "502"] {
        assert_eq!(afterwards.recv().await.unwrap(), expected);
    }
}

/// Two servers that ask each other before they listen, and end after one answer: all of it comes of one request,
/// and ends as any loop does.
#[tokio::test]
async fn servers_that_ask_before_they_listen_and_end_are_a_loop() {
    let plane = Plane::new();
    let outside = tokio::runtime::Handle::current();
    let ends = Arc::new(AtomicU32::new(0));
    for (name, other) in [("one", "two"), ("two", "one")] {
        let (outside, starter) = (outside.clone(), plane.starter.clone());
        let (pool, ends) = (plane.dispatcher.pool().clone(), ends.clone());
        server(&plane, name, other, move |proxy, life| {
            let (outside, starter, pool, ends) =
                (outside.clone(), starter.clone(), pool.clone(), ends.clone());
            async move {
                let own = starter.starts.load(Ordering::Relaxed);
                // The one that asked shall be gone.
                while ends.load(Ordering::Relaxed) + 1 < own
                    || pool.live().iter().any(|live| live.worker == other)
                {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // Not on this thread: the answer comes when this process is over.
                outside.spawn(fetch(proxy, "http://other.cloister/"));
                while starter.starts.load(Ordering::Relaxed) == own {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                let listener = listen(&life).await;
                let (mut stream, _) = listener.accept().await.unwrap();
                head(&mut stream).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                ends.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    plane.ask("one", get("http://a/")).await.unwrap();
    let begin = std::time::Instant::now();
    let is_loop = |name| {
        let told = plane.invocations(&account(name));
        told.iter().any(|invocation| invocation.error == Some(Failure::Loop))
    };
    while !is_loop("one") && !is_loop("two") {
        let starts = plane.starter.starts.load(Ordering::Relaxed);
        assert!(begin.elapsed() < Duration::from_secs(10), "{starts} starts, and it goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let starts = plane.starter.starts.load(Ordering::Relaxed);
    assert!(starts <= 16, "{starts}");
}
