//! The supervisor's side of the `http` contract: hyper's client over sockets that were made inside
//! the Worker's network namespace.

mod connect;
mod pooled;

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::http::request::Parts;
use ::http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;

use crate::body::Body;
use crate::client::{self, Sender};
use crate::pool::Process;
use crate::runtime::shard;
use crate::worker::ipc::is_gone;
use crate::worker::{CallError, Tunnel};
use pooled::{Home, Returning};

/// Most header fields of an answer.
const HEADER_FIELDS: usize = 256;

/// Most idle connections kept of one process by one shard.
const IDLE: usize = 64;

/// How long a connection that was given back may take to be ready.
const READY: Duration = Duration::from_millis(10);

/// Longest a probe waits for an answer to its request; a slow first answer is no fault.
const PROBE: Duration = Duration::from_secs(3);

/// Connections to one process.
pub struct Upstream {
    address: SocketAddr,
    idle: Box<[Home]>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Upstream {
    /// No connections yet.
    #[must_use]
    pub fn new(address: SocketAddr, shards: usize) -> Self {
        Self { address, idle: (0..shards.max(1)).map(|_| Home::default()).collect() }
    }

    /// Waits until the process accepts a connection, and keeps that connection.
    ///
    /// # Errors
    /// It does not within `limit`.
    pub async fn ready(&self, process: &dyn Process, limit: Duration) -> Result<(), String> {
        let connected = tokio::time::timeout(limit, connect::persist(process, self.address)).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(format!("no socket to reach it: {error}")),
            Err(_) => return Err(format!("did not listen on port {} within {limit:?}", self.address.port())),
        };
        let sender = client::handshake(stream, HEADER_FIELDS).await.map_err(|error| error.to_string())?;
        self.give(sender);
        Ok(())
    }

    /// Sees whether a process that accepts connections speaks HTTP. One that is slow to answer
    /// passes, and one that closes the connection: it may speak nothing but WebSocket.
    ///
    /// # Errors
    /// What it answered is not HTTP.
    pub async fn probe(&self, limit: Duration) -> Result<(), String> {
        let request = Request::get("/")
            .header(header::HOST, "localhost")
            .header(header::USER_AGENT, "cloister-probe/1")
            .body(());
        let Ok((parts, ())) = request.map(Request::into_parts) else { return Ok(()) };
        let Some(sender) = self.take().await else { return Ok(()) };
        match tokio::time::timeout(limit.min(PROBE), self.send(sender, &parts, Body::empty())).await {
            Ok(Err(Failed { broken: false, error: CallError::BadResponse(text), .. })) => {
                Err(format!("accepts connections, but its answer to GET / is not HTTP: {text}"))
            }
            _ => Ok(()),
        }
    }

    /// Sends a request. Sent again once, on a new connection, when the one used had been closed
    /// meanwhile: if no byte of it was sent, or if it is idempotent and has no body.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call(
        &self,
        process: &dyn Process,
        parts: &Parts,
        body: Body,
    ) -> Result<Response<Body>, CallError> {
        let mut body = body;
        let mut broke = None;
        let repeatable = parts.method.is_idempotent() && body.is_end_stream();
        if let Some(sender) = self.take().await {
            match self.send(sender, parts, body).await {
                Ok(response) => return Ok(response),
                Err(Failed { unsent: Some(unsent), .. }) => body = unsent,
                Err(Failed { broken: true, error, .. }) if repeatable => {
                    body = Body::empty();
                    broke = Some(error);
                }
                Err(failed) => return Err(failed.error),
            }
        }
        let stream = match connect::once(process, self.address).await {
            Ok(stream) => stream,
            // The request was on its way when the process went: another must not take it.
            Err(error) => {
                let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
                let gone = refused || is_gone(&error);
                let other = if gone { CallError::Unsent(body) } else { CallError::Internal(error) };
                return Err(broke.unwrap_or(other));
            }
        };
        let Ok(sender) = client::handshake(stream, HEADER_FIELDS).await else {
            return Err(broke.unwrap_or(CallError::Unsent(body)));
        };
        match self.send(sender, parts, body).await {
            Ok(response) => Ok(response),
            Err(failed) => Err(failed.error),
        }
    }

    async fn send(&self, mut sender: Sender, parts: &Parts, body: Body) -> Result<Response<Body>, Failed> {
        let mut response = match sender.try_send_request(outgoing(parts, body)).await {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message().map(Request::into_body);
                let error = error.into_error();
                let broken = client::is_broken(&error);
                let text = if broken {
                    "it closed the connection before its answer was whole".to_owned()
                } else {
                    client::describe(&error)
                };
                return Err(Failed { unsent, broken, error: CallError::BadResponse(text) });
            }
        };
        // What its connection speaks is no affair of the client's: an answer of 1.0 would end a connection of 1.1.
        *response.version_mut() = Version::HTTP_11;
        if response.status() == ::http::StatusCode::SWITCHING_PROTOCOLS {
            let tunnel = Tunnel::upgrade(hyper::upgrade::on(&mut response));
            let mut response = response.map(|_| Body::empty());
            response.extensions_mut().insert(tunnel);
            return Ok(response);
        }
        let (parts, incoming) = response.into_parts();
        if incoming.is_end_stream() {
            self.give(sender);
            return Ok(Response::from_parts(parts, Body::empty()));
        }
        let body = match self.home() {
            Some(home) => Body::boxed(Returning::new(incoming, sender, home.clone())),
            None => incoming.into(),
        };
        Ok(Response::from_parts(parts, body))
    }

    fn home(&self) -> Option<&Home> {
        self.idle.get(shard() % self.idle.len().max(1))
    }

    fn give(&self, sender: Sender) {
        if let Some(home) = self.home() {
            home.give(sender);
        }
    }

    async fn take(&self) -> Option<Sender> {
        let home = self.home()?;
        while let Some(mut sender) = home.take() {
            // One that is still not ready has the body of a request to write, which its answer did not wait for.
            if matches!(tokio::time::timeout(READY, sender.ready()).await, Ok(Ok(()))) {
                return Some(sender);
            }
        }
        None
    }
}

struct Failed {
    unsent: Option<Body>,
    broken: bool,
    error: CallError,
}

/// The request as it goes to the Worker: origin form, HTTP/1.1, a `Host`.
fn outgoing(parts: &Parts, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = parts.headers.clone();
    // hyper believes a length it is given, and states the right one itself: with another's length, a
    // part of one caller's request would be read as the next caller's on this connection.
    request.headers_mut().remove(header::CONTENT_LENGTH);
    if request.body().is_end_stream() {
        if matches!(parts.method, Method::POST | Method::PUT | Method::PATCH) {
            request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    } else if request.body().size_hint().exact().is_none() {
        // hyper sends the body of a GET or a HEAD only when it is told how.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let target = parts.uri.path_and_query().cloned();
    let mut uri = ::http::uri::Parts::default();
    uri.path_and_query = target.or_else(|| Some(::http::uri::PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
    if !request.headers().contains_key(header::HOST) {
        let host = parts.uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
        let host = host.unwrap_or(HeaderValue::from_static("localhost"));
        request.headers_mut().insert(header::HOST, host);
    }
    request
}

/// Connections that wait for a request; a list a shard, so its lock is never contended.
type Idle = Mutex<Vec<Sender>>;

fn lock(idle: &Idle) -> std::sync::MutexGuard<'_, Vec<Sender>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::OwnedFd;

    use futures_util::future::BoxFuture;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::pool::Ended;

    /// A process whose network is the test's.
    struct Here;

    impl Process for Here {
        fn pid(&self) -> i32 {
            0
        }

        fn cpu_time(&self) -> io::Result<Duration> {
            Ok(Duration::ZERO)
        }

        fn kill(&self) {}

        fn exited(&self) -> BoxFuture<'_, Ended> {
            Box::pin(std::future::pending())
        }

        fn socket(&self) -> BoxFuture<'_, io::Result<OwnedFd>> {
            use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None);
            Box::pin(async { Ok(socket?) })
        }

        fn walls(&self) -> serde_json::Value {
            serde_json::Value::Null
        }

        fn inspect(&self) -> BoxFuture<'_, Option<crate::launch::Inspection>> {
            Box::pin(async { None })
        }
    }

    /// Has a server that speaks HTTP/1.0 answer `ok`; what it was asked, and the answer.
    async fn exchange(method: Method, body: Body) -> (String, Response<Body>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Upstream::new(listener.local_addr().unwrap(), 1);
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            let is_whole = |asked: &[u8]| {
                let (chunked, end) = (asked.windows(7).any(|part| part == b"chunked"), b"\r\n0\r\n\r\n");
                asked.ends_with(if chunked { &end[..] } else { b"\r\n\r\n" })
            };
            while !is_whole(&asked) {
                assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0, "{}", asked.escape_ascii());
            }
            stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let request = Request::builder().method(method).uri("http://a.test/").body(()).unwrap();
        let answer = upstream.call(&Here, &request.into_parts().0, body).await;
        (server.await.unwrap(), answer.unwrap_or_else(|error| panic!("{error:?}")))
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_sent_whatever_the_method() {
        for method in [Method::GET, Method::HEAD, Method::DELETE, Method::POST] {
            let frames = [Ok::<_, crate::body::BodyError>(http_body::Frame::data("abc".into()))];
            let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
            let (asked, _) = exchange(method.clone(), body).await;
            assert!(asked.contains("\r\n3\r\nabc\r\n"), "{method}: {asked}");
        }
        let (asked, _) = exchange(Method::GET, Body::empty()).await;
        assert!(!asked.contains("chunked"), "{asked}");
    }

    #[tokio::test]
    async fn an_answer_of_an_older_http_is_one_like_others() {
        let (_, answer) = exchange(Method::GET, Body::empty()).await;
        assert_eq!(answer.version(), Version::HTTP_11);
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    }

    #[test]
    fn the_length_sent_is_the_bodys() {
        let sent = |method: &str, body: Body| {
            let request = Request::builder().method(method).uri("http://a.test/x");
            let request = request.header(header::CONTENT_LENGTH, "90").header(header::HOST, "a.test");
            let (parts, ()) = request.body(()).unwrap().into_parts();
            let sent = outgoing(&parts, body);
            sent.headers().get(header::CONTENT_LENGTH).cloned()
        };
        assert_eq!(sent("GET", Body::empty()), None);
        assert_eq!(sent("POST", Body::empty()), Some(HeaderValue::from_static("0")));
        assert_eq!(sent("POST", Body::full("abc")), None, "hyper adds the right one");
    }
}
