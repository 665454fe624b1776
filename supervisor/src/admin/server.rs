//! Serving the API: on a Unix socket to accounts that may, on TCP to bearers of the token.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tower::ServiceExt as _;

use super::ApiError;
use super::places::{Peer, Places};
pub use super::token::Token;
use crate::peer::peer;

/// Connections at a time, each listener; more wait unaccepted.
const CONNECTIONS: usize = 256;
/// Longest time for a request's head.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// What of it a connection has that comes when hardly any place is free.
const HURRY: u32 = 10;
/// Longest time open requests may take when the supervisor ends.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Who may do what on a connection.
#[derive(Debug, Clone)]
enum Access {
    Granted,
    Denied(u32),
    ByToken(Token),
}

impl Access {
    /// Whether who sends this may do all there is.
    fn permits(&self, request: &Request<Incoming>) -> bool {
        match self {
            Self::Granted => true,
            Self::Denied(_) => false,
            Self::ByToken(token) => token.permits(request.headers()),
        }
    }
}

/// Binds the Unix socket: mode 0666, since every caller is asked who it is. A socket that nobody
/// listens on any more is replaced.
///
/// # Errors
/// Its folder can't be made, somebody listens there, or something else has that name.
pub fn bind_unix(path: &Path) -> io::Result<StdUnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "is there already and is no socket"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another supervisor listens there"));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = StdUnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the Unix socket until `stop` is true: root, this process's own account and `users` may.
///
/// # Errors
/// The socket can't be used.
pub async fn serve_unix(
    listener: StdUnixListener,
    router: Router,
    users: BTreeSet<u32>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let own = nix::unistd::Uid::effective().as_raw();
    serve(Unix { listener: UnixListener::from_std(listener)?, own, users }, router, HEAD_TIME, stop).await;
    Ok(())
}

/// Serves TCP until `stop` is true.
///
/// # Errors
/// The socket can't be used.
pub async fn serve_tcp(
    listener: std::net::TcpListener,
    router: Router,
    token: Token,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    serve(Tcp { listener: TcpListener::from_std(listener)?, token }, router, HEAD_TIME, stop).await;
    Ok(())
}

/// Where connections come from, and what each may do.
trait Door: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Access, Peer)>> + Send;
}

struct Unix {
    listener: UnixListener,
    own: u32,
    users: BTreeSet<u32>,
}

impl Door for Unix {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Access, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let uid = stream.peer_cred()?.uid();
        let known = uid == 0 || uid == self.own || self.users.contains(&uid);
        let access = if known { Access::Granted } else { Access::Denied(uid) };
        Ok((stream, access, Peer::Account(uid)))
    }
}

struct Tcp {
    listener: TcpListener,
    token: Token,
}

impl Door for Tcp {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Access, Peer)> {
        let (stream, address) = self.listener.accept().await?;
        Ok((stream, Access::ByToken(self.token.clone()), Peer::Address(peer(address.ip()))))
    }
}

/// Binds TCP.
///
/// # Errors
/// The address can't be bound.
pub fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn serve<D: Door>(door: D, router: Router, head_time: Duration, mut stop: watch::Receiver<bool>) {
    let graceful = GracefulShutdown::new();
    let places = Places::new(CONNECTIONS);
    // HTTP/1 alone: waiting to learn which version a client speaks, and an idle h2 connection, have no
    // time limit, so that whoever may connect could take every place for ever.
    let builder = |head_time| {
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(head_time).max_buf_size(64 * 1024);
        builder
    };
    let (patient, hurried) = (builder(head_time), builder(head_time / HURRY));
    loop {
        let next = async {
            let free = places.free().await.ok_or(io::ErrorKind::NotConnected)?;
            door.accept().await.map(|accepted| (free, accepted))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (free, (stream, access, peer)) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a peer that left: neither lasts, but must not spin.
                tracing::warn!(%error, "admin connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Of others it is not known before their first request.
        let known = matches!(access, Access::Granted);
        let Some(place) = places.give(free, peer, known) else {
            tracing::debug!(?peer, "admin connection was closed: too many from there");
            continue;
        };
        let builder = if places.are_scarce() { &hurried } else { &patient };
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            if access.permits(&request) {
                place.is_known();
            }
            answer(router.clone(), access.clone(), request)
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
    let drained = tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!("admin requests were cut off after {DRAIN_TIME:?}");
    }
}

async fn answer(
    router: Router,
    access: Access,
    request: Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let denied = match &access {
        access if access.permits(&request) => None,
        // Tells nothing; load balancers ask without credentials.
        Access::ByToken(_) if request.uri().path() == "/health" => None,
        Access::Denied(uid) => Some(format!(
            "uid {uid} may not use this socket: use root, or name the account in listen.admin_users of cloister.toml"
        )),
        Access::Granted | Access::ByToken(_) => {
            Some("send the admin token as `Authorization: Bearer …`".to_owned())
        }
    };
    if let Some(message) = denied {
        return Ok(ApiError::unauthorized(message).into_response());
    }
    router.oneshot(request.map(axum::body::Body::new)).await
}

/// The uids of account names.
///
/// # Errors
/// Names the first account that does not exist.
pub fn uids(names: &[String]) -> Result<BTreeSet<u32>, String> {
    let uid = |name: &String| match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(format!("listen.admin_users: there is no account {name:?}")),
        Err(error) => Err(format!("listen.admin_users: {name:?}: {error}")),
    };
    names.iter().map(uid).collect()
}

/// Removes the socket's file at the end, as far as that is possible after privileges were dropped.
#[derive(Debug)]
pub struct SocketFile(pub PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "the admin socket's file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use http::{StatusCode, header};
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    const TOKEN: &[u8] = b"0123456789abcdef";

    fn routes() -> Router {
        Router::new().route("/health", get(async || "fine")).route("/client", get(async || "inside"))
    }

    async fn ask<S>(stream: S, path: &str, token: Option<&str>) -> StatusCode
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header(header::HOST, "admin");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token);
        }
        sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap().status()
    }

    #[tokio::test]
    async fn tcp_asks_for_the_token() {
        let listener = bind_tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve_tcp(listener, routes(), Token::of(TOKEN), stopped));
        for (path, token, status) in [
            ("/client", None, StatusCode::FORBIDDEN),
            ("/client", Some("Bearer 0123456789abcdeg"), StatusCode::FORBIDDEN),
            ("/client", Some("Basic 0123456789abcdef"), StatusCode::FORBIDDEN),
            ("/client", Some("Bearer"), StatusCode::FORBIDDEN),
            ("/client", Some("bearer 0123456789abcdef"), StatusCode::OK),
            ("/health", None, StatusCode::OK),
        ] {
            let stream = TcpStream::connect(address).await.unwrap();
            assert_eq!(ask(stream, path, token).await, status, "{path} {token:?}");
        }
        stop.send_replace(true);
        serving.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn the_unix_socket_asks_the_kernel_who_calls() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/admin.sock");
        let listener = UnixListener::from_std(bind_unix(&path).unwrap()).unwrap();
        let me = nix::unistd::Uid::effective().as_raw();
        let door = Unix { listener, own: me, users: BTreeSet::new() };
        let (_stream, accepted) = tokio::join!(UnixStream::connect(&path), door.accept());
        assert!(matches!(accepted.unwrap().1, Access::Granted));
        assert_eq!(bind_unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(door);
        bind_unix(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert_eq!(bind_unix(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    /// Hands out one end of what the test opens.
    struct Opened(tokio::sync::Mutex<mpsc::UnboundedReceiver<(DuplexStream, Peer)>>);

    impl Door for Opened {
        type Stream = DuplexStream;

        async fn accept(&self) -> io::Result<(DuplexStream, Access, Peer)> {
            match self.0.lock().await.recv().await {
                Some((stream, peer)) => Ok((stream, Access::ByToken(Token::of(TOKEN)), peer)),
                None => std::future::pending().await,
            }
        }
    }

    /// Who says nothing keeps nobody else out: not from one address, and from many only for a moment.
    #[tokio::test]
    async fn silent_clients_leave_places_for_others() {
        let (opened, receiver) = mpsc::unbounded_channel();
        let (_going, stop) = watch::channel(false);
        let door = Opened(tokio::sync::Mutex::new(receiver));
        let serving = tokio::spawn(serve(door, routes(), HEAD_TIME, stop));
        let open = |account| {
            let (near, far) = duplex(1024);
            opened.send((far, Peer::Account(account))).unwrap();
            near
        };
        let mut silent: Vec<_> = (0..2 * CONNECTIONS).map(|_| open(1)).collect();
        let credentials = Some("Bearer 0123456789abcdef");
        assert_eq!(ask(open(2), "/client", credentials).await, StatusCode::OK);
        let mut closed = 0;
        for client in &mut silent {
            let mut read = std::pin::pin!(tokio::task::coop::unconstrained(client.read_u8()));
            closed += usize::from(futures_util::poll!(read.as_mut()).is_ready());
        }
        assert_eq!(closed, 2 * CONNECTIONS - CONNECTIONS / 4);
        silent.extend((0..8 * CONNECTIONS).map(|number| open(3 + u32::try_from(number).unwrap() % 8)));
        let asked = tokio::time::timeout(HEAD_TIME / 2, ask(open(2), "/client", credentials));
        assert_eq!(asked.await.expect("all places are taken"), StatusCode::OK);
        serving.abort();
    }

    /// Nobody keeps a place by saying nothing, or by starting to speak h2.
    #[tokio::test]
    async fn a_silent_client_is_not_kept() {
        let listener = bind_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (_going, stop) = watch::channel(false);
        let door = Tcp { listener: TcpListener::from_std(listener).unwrap(), token: Token::of(TOKEN) };
        let serving = tokio::spawn(serve(door, Router::new(), Duration::from_millis(100), stop));
        for said in ["", "PRI * HT", "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(said.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut answer));
            assert!(ended.await.is_ok(), "still open after {said:?}");
        }
        serving.abort();
    }
}
