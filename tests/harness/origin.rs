//! A server on loopback that Workers fetch from: it tells what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request that came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Header fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

/// The server. It runs on a thread of its own until the process ends or it is dropped.
///
/// Paths: `/redirect?URL` answers 302 to URL, `/status/N` answers N, everything else 200; the body is
/// always JSON with `method`, `path`, `headers` and `bytes` of what came.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Dropped to end the thread.
    _end: tokio::sync::oneshot::Sender<()>,
}

impl Origin {
    /// Plain HTTP.
    #[must_use]
    pub fn start() -> Self {
        Self::serve(None)
    }

    /// HTTPS with a self-signed certificate for `name`; returns the certificate as PEM too.
    #[must_use]
    pub fn start_tls(name: &str) -> (Self, String) {
        let key = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        let pem = key.cert.pem();
        let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret.into())
            .expect("a TLS configuration");
        (Self::serve(Some(TlsAcceptor::from(Arc::new(config)))), pem)
    }

    fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port of loopback");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let log = Arc::clone(&seen);
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, tls, log) => {}
                    _ = ended => {}
                }
            });
        });
        Self { address, seen, _end: end }
    }

    /// `http://127.0.0.1:PORT` + `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What came so far, oldest first.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the list").clone()
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, log: Arc<Mutex<Vec<Seen>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let log = Arc::clone(&log);
        match tls.clone() {
            None => drop(tokio::spawn(serve_one(stream, log))),
            Some(tls) => drop(tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    serve_one(stream, log).await;
                }
            })),
        }
    }
}

async fn serve_one<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    log: Arc<Mutex<Vec<Seen>>>,
) {
    let service = service_fn(move |request| answer(request, Arc::clone(&log)));
    // A client that goes away is no failure of the origin.
    let _gone =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let headers: serde_json::Map<_, _> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let told = serde_json::json!({
        "method": head.method.as_str(), "path": path, "headers": headers, "bytes": body.len(),
    });
    let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    let response = if let Some(to) = path.strip_prefix("/redirect?") {
        response.status(StatusCode::FOUND).header(header::LOCATION, to)
    } else if let Some(status) = path.strip_prefix("/status/") {
        response.status(status.parse::<u16>().expect("a status in the path"))
    } else {
        response
    };
    log.lock().expect("the list").push(Seen { method: head.method, path, headers: head.headers, body });
    Ok(response.body(Full::from(told.to_string())).expect("a response"))
}
