//! CONNECT: a tunnel for TLS to the host that was named, and for nothing else.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloister_policies::egress::{Asked, Content, Decision, Host, Scheme, split_authority};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fetch::{denied, is_reserved};
use super::hello::{self, HEADER_BYTES};
use super::journal::Entry;
use super::{Caller, Egress, EgressError};
use crate::body::Body;

/// Bytes copied at a time, each way.
const PIECE: usize = 16 << 10;
/// TLS alert: fatal, access denied.
const ACCESS_DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// A tunnel whose far end is connected.
struct Tunnel {
    host: Host,
    server: TcpStream,
    limit: Option<u64>,
}

impl Egress {
    /// Answers a CONNECT request; the tunnel lives on in a task of its own.
    pub(super) async fn connect(
        self: Arc<Self>,
        caller: &Caller,
        mut req: Request<Incoming>,
    ) -> Result<Response<Body>, EgressError> {
        let asked = req.uri().authority().map_or("", |authority| authority.as_str()).to_owned();
        let parsed = split_authority(&asked);
        let (host, port) = match &parsed {
            Ok((host, port)) => (host.to_string(), port.unwrap_or(0)),
            Err(_) => (asked, 0),
        };
        let mut entry = Entry::new(&self.journal, caller, "CONNECT", &host, port);
        match self.open(caller, parsed, &mut entry).await {
            Ok(tunnel) => {
                entry.status(StatusCode::OK);
                let client = hyper::upgrade::on(&mut req);
                let (handshake, silence) = (self.connect_timeout, self.idle_timeout);
                tokio::spawn(tunnel.serve(client, entry, handshake, silence));
                Ok(Response::new(Body::empty()))
            }
            Err(error) => Err(entry.failed(error)),
        }
    }

    async fn open(
        &self,
        caller: &Caller,
        parsed: Result<(Host, Option<u16>), cloister_policies::egress::TargetError>,
        entry: &mut Entry,
    ) -> Result<Tunnel, EgressError> {
        caller.subrequests.take()?;
        entry.hold(self.slot(caller)?);
        let (host, port) = parsed.map_err(|error| EgressError::Invalid(error.to_string()))?;
        let port = port.ok_or_else(|| EgressError::Invalid("CONNECT needs a port".into()))?;
        if is_reserved(&host) {
            return Err(EgressError::Invalid(format!(
                "{host} is a reserved name, and speaks plain HTTP only"
            )));
        }
        let loaded = self.folder.judge_of(&caller.worker);
        // Only TLS will pass.
        let asked = Asked { scheme: Scheme::Https, host: &host, port, content: Content::Tunnel };
        let verdict = loaded.policy.judge(&asked);
        entry.verdict(&verdict);
        match verdict.decision {
            Decision::Allow => {}
            Decision::Deny | Decision::Outbound(_) => {
                let reason = verdict.refusal.map_or_else(String::new, |refusal| refusal.to_string());
                return Err(denied(&verdict, reason));
            }
        }
        if caller.outbound.is_some() {
            let reason = "CONNECT would hide the request from the outbound Worker: send the absolute https:// URI \
                          to the proxy instead, or use the SDK";
            return Err(denied(&verdict, reason));
        }
        self.within_rate(caller, &loaded, &verdict)?;
        let addresses = self.addresses(&host, &verdict).await?;
        let connected = self.dialer.tcp(&addresses, port).await;
        let (server, address) =
            connected.map_err(|reason| EgressError::Network { host: format!("{host}:{port}"), reason })?;
        entry.address(address);
        let limit = verdict.rule.and_then(|rule| rule.response_bytes);
        Ok(Tunnel { host, server, limit })
    }
}

impl Tunnel {
    async fn serve(mut self, client: OnUpgrade, mut entry: Entry, handshake: Duration, silence: Duration) {
        let Ok(client) = client.await else {
            return entry.broke("the Worker went away");
        };
        let mut client = TokioIo::new(client);
        let first = match timeout(handshake, self.judge_hello(&mut client)).await {
            Ok(first) => first,
            Err(_) => Err("no TLS ClientHello in time".to_owned()),
        };
        let first = match first {
            Ok(first) => first,
            Err(reason) => {
                entry.refused(reason);
                // The Worker may be gone already.
                let _ = client.write_all(&ACCESS_DENIED).await;
                let _ = client.shutdown().await;
                return;
            }
        };
        if let Err(error) = self.server.write_all(&first).await {
            return entry.broke(error.to_string());
        }
        let server = self.server;
        let ended = copy_both(client, server, self.limit, silence, &mut |bytes| entry.bytes(bytes)).await;
        if let Err(error) = ended {
            entry.broke(error.to_string());
        }
    }

    /// Reads the first record, which must be a ClientHello for the host that was asked for.
    async fn judge_hello<C: AsyncRead + Unpin>(&self, client: &mut C) -> Result<Vec<u8>, String> {
        let text = |error: io::Error| format!("no TLS ClientHello: {error}");
        let mut header = [0; HEADER_BYTES];
        client.read_exact(&mut header).await.map_err(text)?;
        let length = hello::record_length(header).map_err(|error| error.to_string())?;
        let mut first = vec![0; HEADER_BYTES + length];
        let (head, record) = first.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header);
        client.read_exact(record).await.map_err(text)?;
        let hello = hello::parse(record).map_err(|error| error.to_string())?;
        match (hello.server_name, &self.host) {
            // There is no server name for an address (RFC 6066, 3).
            (None, Host::Address(_)) => Ok(first),
            (None, Host::Name(name)) => {
                Err(format!("CONNECT is to {name}, the TLS ClientHello names no server"))
            }
            (Some(name), host) if Host::parse(&name).as_ref() == Ok(host) => Ok(first),
            (Some(name), host) => Err(format!("CONNECT is to {host}, the TLS ClientHello names {name}")),
        }
    }
}

/// Copies both ways until both have ended, one has failed, there is silence, or `limit` bytes have
/// come from the server. The ways don't wait for each other: a full one must not block the other.
async fn copy_both<C, S>(
    client: C,
    server: S,
    limit: Option<u64>,
    silence: Duration,
    count_down: &mut (impl FnMut(u64) + Send),
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (server_read, server_write) = tokio::io::split(server);
    let moved = AtomicBool::new(false);
    let up = copy(client_read, server_write, None, &moved, |_| {});
    let down = copy(server_read, client_write, limit, &moved, count_down);
    let silent = async {
        loop {
            tokio::time::sleep(silence).await;
            if !moved.swap(false, Ordering::Relaxed) {
                return;
            }
        }
    };
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()),
        () = silent => Err(io::Error::new(io::ErrorKind::TimedOut, "the tunnel fell silent")),
    }
}

/// Copies one way until its end, and passes the end on.
async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    mut from: R,
    mut to: W,
    limit: Option<u64>,
    moved: &AtomicBool,
    mut count: impl FnMut(u64),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut copied = 0_u64;
    loop {
        let read = from.read(&mut piece).await?;
        moved.store(true, Ordering::Relaxed);
        let bytes = piece.get(..read).unwrap_or_default();
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        copied = copied.saturating_add(bytes.len() as u64);
        if let Some(limit) = limit.filter(|limit| copied > *limit) {
            return Err(io::Error::other(format!("more than {limit} bytes came from the server")));
        }
        to.write_all(bytes).await?;
        count(bytes.len() as u64);
    }
}
