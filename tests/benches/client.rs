//! A blocking HTTP/1.1 client of one request a connection, whose clock is what is measured.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::context::Failure;

/// Longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(crate) trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Address {
    /// `127.0.0.1:PORT`.
    pub(crate) fn local(port: u16) -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Opens a connection, with a read timeout.
    pub(crate) fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// From before connecting to the first byte of the answer.
    pub(crate) first_byte: Duration,
}

/// A request; a body of no bytes is sent as none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    /// `content-type` of the body.
    pub(crate) kind: &'a str,
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A GET, or a POST of `body`.
    pub(crate) fn new(host: &'a str, path: &'a str, body: Option<&'a [u8]>) -> Self {
        let method = if body.is_some() { "POST" } else { "GET" };
        Self { method, host, path, kind: "application/octet-stream", body: body.unwrap_or_default() }
    }

    fn head(&self) -> String {
        let Self { method, host, path, kind, body } = self;
        let about = if body.is_empty() && *method == "GET" {
            String::new()
        } else {
            format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len())
        };
        format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{about}connection: close\r\n\r\n")
    }
}

/// Asks `path` of the server at `address`, as `host`; `post` is a body to post. One connection, no
/// keep-alive.
pub(crate) fn ask(address: &Address, host: &str, path: &str, post: Option<&[u8]>) -> Result<Answer, Failure> {
    send(address, &Request::new(host, path, post))
}

/// Sends a request on a connection of its own.
pub(crate) fn send(address: &Address, request: &Request<'_>) -> Result<Answer, Failure> {
    let start = Instant::now();
    let mut stream = address.connect().map_err(|error| format!("connect to {address}: {error}"))?;
    finish(&mut *stream, start, request).map_err(|error| {
        format!("{} {}{} at {address}: {error}", request.method, request.host, request.path).into()
    })
}

/// Asks on a connected stream; `start` is when the clock began.
pub(crate) fn finish(
    stream: &mut dyn Stream,
    start: Instant,
    request: &Request<'_>,
) -> Result<Answer, Failure> {
    stream.write_all(request.head().as_bytes())?;
    stream.write_all(request.body)?;
    let mut bytes = vec![0; 16 << 10];
    let mut filled = 0;
    let mut first_byte = None;
    loop {
        if filled == bytes.len() {
            bytes.resize(bytes.len() * 2, 0);
        }
        let read = stream.read(bytes.get_mut(filled..).unwrap_or_default())?;
        if read == 0 {
            break;
        }
        first_byte.get_or_insert_with(|| start.elapsed());
        filled += read;
    }
    bytes.truncate(filled);
    let first_byte = first_byte.ok_or("closed without an answer")?;
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or("no end of the head")?;
    let body = bytes.split_off(end + 4);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or("no status line")?;
    Ok(Answer { status, head, body, first_byte })
}
