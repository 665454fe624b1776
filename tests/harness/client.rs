//! An HTTP/1.1 client: one connection a request, over TCP or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use crate::Answer;

/// Longest wait for a whole answer. A bound for a hung test, not something to wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where requests go.
#[derive(Debug, Clone)]
pub enum Client {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Client {
    /// GET of `http://host/path`; `host` only chooses the route, the connection goes to this client's address.
    pub async fn get(&self, url: &str) -> Answer {
        self.send(Request::get(url).body(Full::default()).expect("a valid URL")).await
    }

    /// POST of a body.
    pub async fn post(&self, url: &str, body: impl Into<Bytes>) -> Answer {
        self.send(Request::post(url).body(Full::new(body.into())).expect("a valid URL")).await
    }

    /// Sends a request and reads the whole answer.
    #[track_caller]
    pub fn send<B>(&self, request: Request<B>) -> impl Future<Output = Answer> + use<B>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let what = format!("{} {}", request.method(), request.uri());
        let client = self.clone();
        async move {
            match client.try_send(request).await {
                Ok(answer) => answer,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }

    /// As [`Client::send`], for requests that may go wrong.
    pub async fn try_send<B>(&self, request: Request<B>) -> io::Result<Answer>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        tokio::time::timeout(PATIENCE, async {
            let (head, body) = self.open(request).await?.into_parts();
            let collected = body.collect().await.map_err(io::Error::other)?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            Ok(Answer { status: head.status, headers: head.headers, body: collected.to_bytes(), trailers })
        })
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no whole answer within 60 s"))?
    }

    /// Sends a request and returns when the response's head is there; upgrades are possible.
    pub async fn open<B>(&self, mut request: Request<B>) -> io::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        // HTTP/1.1 to an origin: the authority goes to Host, the path alone to the request line.
        if let Some(authority) = request.uri().authority().cloned() {
            let host = authority.as_str().parse().map_err(io::Error::other)?;
            request.headers_mut().entry(http::header::HOST).or_insert(host);
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse().map_err(io::Error::other)?;
        }
        match self {
            Self::Tcp(address) => Self::exchange(TcpStream::connect(address).await?, request).await,
            Self::Unix(path) => Self::exchange(UnixStream::connect(path).await?, request).await,
        }
    }

    async fn exchange<S, B>(stream: S, request: Request<B>) -> io::Result<Response<Incoming>>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await.map_err(io::Error::other)
    }
}
