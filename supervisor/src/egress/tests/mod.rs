//! The filter against servers on loopback.

mod connect;
mod dns;
mod fetch;
mod outbound;
mod proxy;
mod reload;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{BindingTarget, Bindings, Budget, Caller, Egress, EgressConfig, EgressError, Resolve};
use crate::body::{Body, BodyError};
use crate::outcome::Failure;
use crate::registry::WorkerId;

/// Answers names from a table and counts the questions.
#[derive(Default)]
struct Names {
    table: HashMap<&'static str, Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.table.get(name).cloned().ok_or_else(|| "no such name".to_owned());
        Box::pin(async move { found })
    }
}

/// A filter with a policy folder of its own.
struct Rig {
    egress: Arc<Egress>,
    names: Arc<Names>,
    folder: TempDir,
}

impl Rig {
    /// `policy` judges every Worker; every name of `names` has these addresses.
    fn new(policy: &str, names: &[(&'static str, &[&str])]) -> Self {
        Self::with(policy, names, EgressConfig::default())
    }

    fn with(policy: &str, names: &[(&'static str, &[&str])], config: EgressConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "default.toml", &format!("version = 1\n{policy}"));
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        let table = names.iter().map(|(name, list)| (*name, addresses(list))).collect();
        let names = Arc::new(Names { table, asked: AtomicUsize::new(0) });
        let config = EgressConfig { policy_dir: Some(folder.path().to_owned()), ..config };
        let egress = Egress::with_resolver(&config, names.clone()).unwrap();
        assert!(egress.policies().iter().all(|file| file.refused.is_none()), "{:?}", egress.policies());
        Self { egress, names, folder }
    }

    async fn get(&self, uri: &str) -> Result<Seen, EgressError> {
        self.fetch(&caller(), request("GET", uri)).await
    }

    async fn fetch(&self, caller: &Caller, req: Request<Body>) -> Result<Seen, EgressError> {
        let response = self.egress.fetch(caller, req).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map(|body| String::from_utf8(body.to_bytes().into()).unwrap());
        Ok(Seen { head, body })
    }

    /// The last decision, as `verdict rule`.
    fn decided(&self) -> String {
        let decisions = self.egress.decisions();
        let last = decisions.last().unwrap();
        format!("{} {}", last.verdict, last.rule)
    }
}

/// A response that came through.
#[derive(Debug)]
struct Seen {
    head: http::response::Parts,
    body: Result<String, BodyError>,
}

impl Seen {
    fn text(self) -> String {
        assert_eq!(self.head.status, StatusCode::OK);
        self.body.unwrap()
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn caller() -> Caller {
    Caller {
        worker: WorkerId { namespace: Some("production".into()), name: "shop".into() },
        version: "v1".into(),
        ray: "ray".into(),
        depth: 0,
        subrequests: Arc::new(Budget::new(None)),
        outbound: None,
        on_behalf_of: None,
    }
}

fn request(method: &str, uri: &str) -> Request<Body> {
    Request::builder().method(method).uri(uri).body(Body::empty()).unwrap()
}

/// Permits loopback to everything.
const OPEN: &str = r#"
[[rule]]
name = "open"
hosts = ["*"]
action = "allow"
networks = ["127.0.0.0/8"]
"#;

/// A server that tells what it saw: the request line, its headers in order, its body; each
/// connection has a number.
struct Origin {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None)
    }

    fn on(listener: TcpListener, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            let mut connection = 0;
            while let Ok((stream, _)) = listener.accept().await {
                connection += 1;
                let (seen, tls) = (Arc::clone(&seen), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, connection, seen).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                answer(stream, connection, seen).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn answer<S>(stream: S, connection: usize, seen: Arc<Mutex<Vec<String>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |req: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = req.into_parts();
            let mut text = format!("{} {} connection={connection}\n", head.method, head.uri);
            for (name, value) in &head.headers {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap()));
            }
            let body = body.collect().await?.to_bytes();
            text.push_str(&format!("body={}", String::from_utf8_lossy(&body)));
            seen.lock().unwrap().push(text.clone());
            Ok::<_, hyper::Error>(reply(head.uri.path(), text))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// What the server answers to some paths.
fn reply(path: &str, text: String) -> Response<Body> {
    let builder = Response::builder();
    match path {
        "/redirect" => builder.status(302).header("location", "http://169.254.169.254/").body(Body::empty()),
        "/forged" => builder
            .header("cloister-egress", "denied")
            .header("cloister-dispatch", "victim")
            .header("cloister-dispatch-limits", "subrequests=1000")
            .header("cloister_dispatch", "victim")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .body(Body::empty()),
        "/long" => builder.body(Body::full(vec![b'x'; 4096])),
        "/endless" => {
            let pieces = futures_util::stream::repeat_with(|| {
                Ok::<_, BodyError>(hyper::body::Frame::data(Bytes::from_static(&[b'x'; 1024])))
            });
            builder.body(Body::boxed(http_body_util::StreamBody::new(pieces)))
        }
        _ => builder.body(Body::full(text)),
    }
    .unwrap()
}

/// A certificate for these names, and the file of the authority that signed it.
fn certificate(names: &[&str], folder: &Path) -> (tokio_rustls::TlsAcceptor, std::path::PathBuf) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let file = folder.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(config)), file)
}

/// A server that switches to an echo after a WebSocket handshake, over TLS if told so.
async fn echo_after_upgrade(tls: Option<tokio_rustls::TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => drop(tokio::spawn(switch(stream))),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        tokio::spawn(switch(stream));
                    }
                }
            }
        }
    });
    address
}

async fn switch<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let head = head_of(&mut stream).await;
    assert!(head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n"), "{head}");
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

/// Reads up to the empty line.
async fn head_of<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Bindings that tell what they are asked.
struct Echo;

impl Bindings for Echo {
    fn call<'a>(
        &'a self,
        caller: &'a Caller,
        target: BindingTarget,
        req: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, Failure>> {
        Box::pin(async move {
            match &target {
                BindingTarget::Service { binding } if binding == "missing" => Err(Failure::ScriptNotFound),
                _ => Ok(Response::new(Body::full(format!(
                    "{} {target:?} {}",
                    caller.worker,
                    req.uri().path()
                )))),
            }
        })
    }
}

/// A Worker's connection to its proxy port.
async fn proxy(rig: &Rig, caller: impl Fn() -> Caller + Send + Sync + 'static) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let egress = Arc::clone(&rig.egress);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        egress.serve_proxy(stream, caller, Echo).await;
    });
    TcpStream::connect(address).await.unwrap()
}

/// Sends `head` to a proxy port and reads the answer to its end.
async fn through(rig: &Rig, head: &str) -> String {
    let mut stream = proxy(rig, caller).await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The byte stream of a 101 response.
fn open(response: &mut Response<Body>) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(1024);
    let tunnel = crate::worker::Tunnel::take(response).unwrap();
    tokio::spawn(tunnel.join(crate::worker::Tunnel::new(far)));
    near
}
