//! Where a server listens: `tcp:ADDRESS:PORT` or `unix:PATH`.

use std::future::Future;
use std::io;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixListener};

/// Serves HTTP/1.1 on `place` for ever, on the current-thread runtime it is called in (inside a
/// `LocalSet`).
///
/// # Errors
/// A `place` of neither form, or one that can't be listened on.
pub async fn serve<H, F, B>(place: &str, handle: H) -> io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + 'static,
    B: hyper::body::Body<Error = std::convert::Infallible> + 'static,
    B::Data: Send,
{
    if let Some(address) = place.strip_prefix("tcp:") {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            connection(stream, handle.clone());
        }
    }
    if let Some(path) = place.strip_prefix("unix:") {
        let listener = UnixListener::bind(path)?;
        loop {
            let (stream, _) = listener.accept().await?;
            connection(stream, handle.clone());
        }
    }
    let message = format!("{place:?} is no place to listen on: tcp:ADDRESS:PORT or unix:PATH");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn connection<S, H, F, B>(stream: S, handle: H)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
    H: Fn(Request<Incoming>) -> F + 'static,
    F: Future<Output = Result<Response<B>, std::convert::Infallible>> + 'static,
    B: hyper::body::Body<Error = std::convert::Infallible> + 'static,
{
    tokio::task::spawn_local(async move {
        // A client that goes away is no news to a bench server.
        drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(handle)).await);
    });
}
