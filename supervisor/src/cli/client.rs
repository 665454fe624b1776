//! The admin API's client: HTTP/1.1 on the Unix socket, or on TCP with the token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::error::CliError;
use crate::body::Body;
use crate::registry::Name;
use crate::serve::exit;

/// Longest answer that is read whole, bytes.
const ANSWER_BYTES: usize = 256 << 20;

/// Where the API is.
#[derive(Debug)]
enum Place {
    Socket(PathBuf),
    Url { tls: bool, host: String, port: u16 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    place: Place,
    token: Option<String>,
    account: Name,
}

impl Client {
    pub(super) fn new(
        socket: &Path,
        url: Option<&str>,
        token: Option<String>,
        account: &Name,
    ) -> Result<Self, CliError> {
        let usage = |text: String| CliError::failed(exit::USAGE, text);
        let place = match url {
            None => Place::Socket(socket.to_owned()),
            Some(url) => {
                let uri: Uri = url.parse().map_err(|error| usage(format!("--url {url}: {error}")))?;
                let tls = match uri.scheme_str() {
                    Some("http") => false,
                    Some("https") => true,
                    _ => return Err(usage(format!("--url {url}: allowed are http:// and https://"))),
                };
                let host = uri.host().ok_or_else(|| usage(format!("--url {url}: it has no host")))?;
                if !matches!(uri.path(), "" | "/" | "/client/v4" | "/client/v4/") || uri.query().is_some() {
                    return Err(usage(format!(
                        "--url {url}: it has a path; give scheme, host and port only"
                    )));
                }
                if token.is_none() {
                    return Err(usage("--url needs the admin token: set CLOISTER_TOKEN".to_owned()));
                }
                let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                Place::Url { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) }
            }
        };
        Ok(Self { place, token, account: account.clone() })
    }

    /// Calls the API with a JSON body, or none; the result out of the envelope.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        Ok(self.envelope(method, path, body).await?["result"].take())
    }

    /// Calls the API; the whole envelope of a success.
    pub(super) async fn envelope(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        let mut request = self.request(method, path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Body::empty, |value| Body::full(value.to_string()));
        answer(self.send(request, body).await?).await
    }

    /// The head of a request; `path` is below the account.
    pub(super) fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let uri = format!("/client/v4/accounts/{}{path}", self.account);
        let host = match &self.place {
            Place::Socket(_) => "localhost".to_owned(),
            Place::Url { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Url { host, port, .. } => format!("{host}:{port}"),
        };
        let request = Request::builder().method(method).uri(uri).header(header::HOST, host);
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Sends a request.
    pub(super) async fn send(
        &self,
        request: http::request::Builder,
        body: Body,
    ) -> Result<Response<Incoming>, CliError> {
        let request = request.body(body).map_err(|error| CliError::failed(exit::USAGE, error.to_string()))?;
        match &self.place {
            Place::Socket(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    unreachable(format!(
                        "{}: {error}: is `cloister serve` running, and is --admin-socket (CLOISTER_SOCKET) its listen.admin_socket?",
                        path.display()
                    ))
                })?;
                exchange(stream, request).await
            }
            Place::Url { tls, host, port } => {
                let failed = |error: std::io::Error| unreachable(format!("{host}:{port}: {error}"));
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                if !tls {
                    return exchange(stream, request).await;
                }
                let name = ServerName::try_from(host.clone())
                    .map_err(|error| CliError::failed(exit::USAGE, format!("{host}: {error}")))?;
                let stream = connector()?.connect(name, stream).await.map_err(failed)?;
                exchange(stream, request).await
            }
        }
    }
}

fn connector() -> Result<tokio_rustls::TlsConnector, CliError> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CliError::failed(exit::FAILED, error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

fn unreachable(message: String) -> CliError {
    CliError::failed(exit::UNREACHABLE, message)
}

async fn exchange<S>(stream: S, request: Request<Body>) -> Result<Response<Incoming>, CliError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| unreachable(format!("the admin API: {error}"));
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Its end is seen by the request.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(failed)
}

/// Reads an answer: the envelope of a success, or the error it tells.
pub(super) async fn answer(response: Response<Incoming>) -> Result<Value, CliError> {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES);
    let bytes: Bytes = body
        .collect()
        .await
        .map_err(|error| unreachable(format!("the admin API broke off: {error}")))?
        .to_bytes();
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({}));
    if status.is_success() && value["success"] == true {
        return Ok(value);
    }
    let error = &value["errors"][0];
    let message = error["message"].as_str().map_or_else(|| format!("it answered {status}"), str::to_owned);
    Err(CliError::Refused { status: status.as_u16(), code: error["code"].as_u64().unwrap_or(0), message })
}
