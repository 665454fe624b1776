//! HTTP/1.1 connections to servers that nobody trusts: Workers of the `http` contract, and what the egress
//! filter reaches.
//!
//! hyper reads one interim answer (1xx) after the other within one poll, for as long as they come: a server
//! that sends nothing else would keep a data plane thread for itself. So what may come between a request and
//! the head of its answer is bounded.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::Body;

/// Longest head of an answer, in bytes.
const HEAD_BYTES: usize = 64 << 10;

/// Bytes that may come before the head of an answer, and with it.
const INTERIM_BYTES: usize = 2 * HEAD_BYTES;

/// Nobody waits for a head: the body's reader bounds what comes.
const UNBOUNDED: usize = usize::MAX;

/// A connection that requests can be sent on, one at a time.
#[derive(Debug)]
pub(crate) struct Sender {
    inner: SendRequest<Body>,
    left: Arc<AtomicUsize>,
}

/// Starts HTTP/1.1 on a connection; its answers have at most `fields` header fields.
pub(crate) async fn handshake<T>(stream: T, fields: usize) -> Result<Sender, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let left = Arc::new(AtomicUsize::new(UNBOUNDED));
    let stream = Bounded { stream, left: Arc::clone(&left) };
    let mut builder = Builder::new();
    builder.max_headers(fields).max_header_size(HEAD_BYTES).max_buf_size(HEAD_BYTES);
    let (inner, connection) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // What fails here fails the request as well.
        let _ = connection.with_upgrades().await;
    });
    Ok(Sender { inner, left })
}

impl Sender {
    /// Sends a request and waits for the head of its answer; gives it back when nothing of it was sent. Only an
    /// answer that switches protocols carries the connection.
    pub(crate) async fn try_send_request(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.left.store(INTERIM_BYTES, Ordering::Relaxed);
        let answered = self.inner.try_send_request(request).await;
        self.left.store(UNBOUNDED, Ordering::Relaxed);
        let mut response = answered?;
        // hyper gives the connection itself with other answers too (2xx to CONNECT): nothing watches what passes there.
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.extensions_mut().remove::<OnUpgrade>();
        }
        Ok(response)
    }

    /// Waits until another request can be sent.
    pub(crate) async fn ready(&mut self) -> Result<(), hyper::Error> {
        self.inner.ready().await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}

/// What went wrong, with its causes.
pub(crate) fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// True when the other side went away, as opposed to what it sent being wrong.
pub(crate) fn is_broken(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    let io = io.is_some_and(|error| error.kind() != io::ErrorKind::InvalidData);
    error.is_incomplete_message() || error.is_closed() || io
}

struct Bounded<T> {
    stream: T,
    /// Bytes that may still come before a head is there.
    left: Arc<AtomicUsize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Bounded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            let text = format!("more than {INTERIM_BYTES} bytes came without the head of an answer");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if left != UNBOUNDED {
            let came = buffer.filled().len() - before;
            // Unless it was said meanwhile that the head is there.
            let _ = self.left.compare_exchange(
                left,
                left.saturating_sub(came),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Bounded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    fn request() -> Request<Body> {
        Request::get("/").header("host", "a").body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn interim_answers_without_end_are_an_error() {
        let (near, mut far) = duplex(64 << 10);
        let mut sender = handshake(near, 64).await.unwrap();
        let flood = tokio::spawn(async move {
            let mut sent = 0;
            while far.write_all(b"HTTP/1.1 100 \r\n\r\n").await.is_ok() {
                sent += 17;
            }
            sent
        });
        let error = sender.try_send_request(request()).await.unwrap_err().into_error();
        assert!(!is_broken(&error) && describe(&error).contains("without the head"), "{}", describe(&error));
        let sent = tokio::time::timeout(Duration::from_secs(10), flood).await.unwrap().unwrap();
        assert!(sent < INTERIM_BYTES + (256 << 10), "{sent} bytes were taken");
    }

    /// Long answers, on one connection, each after some interim ones, are none of its business.
    #[tokio::test]
    async fn bodies_are_not_counted() {
        const LENGTH: usize = 1 << 20;
        let (near, mut far) = duplex(64 << 10);
        let mut sender = handshake(near, 64).await.unwrap();
        tokio::spawn(async move {
            let mut head = [0; 1024];
            while far.read(&mut head).await.is_ok_and(|read| read > 0) {
                far.write_all(&b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n".repeat(100)).await.unwrap();
                far.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
                far.write_all(&vec![b'x'; LENGTH]).await.unwrap();
            }
        });
        for _ in 0..3 {
            sender.ready().await.unwrap();
            let answer = sender.try_send_request(request()).await.map_err(TrySendError::into_error).unwrap();
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes().len(), LENGTH);
        }
    }

    #[tokio::test]
    async fn only_a_switch_of_protocols_gives_the_connection() {
        for (status, given) in [("101 Switching Protocols", true), ("200 OK", false)] {
            let (near, mut far) = duplex(1024);
            let mut sender = handshake(near, 64).await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 1024];
                assert!(far.read(&mut head).await.unwrap() > 0);
                far.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            });
            let mut request = request();
            *request.method_mut() = if given { http::Method::GET } else { http::Method::CONNECT };
            let answer = sender.try_send_request(request).await.map_err(TrySendError::into_error).unwrap();
            assert_eq!(answer.extensions().get::<OnUpgrade>().is_some(), given, "{status}");
        }
    }
}
