//! Connections to addresses that were judged, and to nothing else: no name is resolved here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloister_policies::egress::{Host, Scheme};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

/// A connection to a server, over TLS for `https`.
pub(super) type Connection = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Why the certificates could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file can't be read.
    #[error("certificates {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds no certificate, or one that is none.
    #[error("certificates {}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Makes connections.
pub(super) struct Dialer {
    tls: TlsConnector,
    timeout: Duration,
}

impl Dialer {
    pub(super) fn new(extra_ca: Option<&Path>, timeout: Duration) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = extra_ca {
            add_roots(&mut roots, path)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let invalid = |error: rustls::Error| CertificateError::Invalid {
            path: extra_ca.unwrap_or(Path::new("")).to_owned(),
            reason: error.to_string(),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(invalid)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A ticket would tell a server that two Workers share this machine.
        config.resumption = Resumption::disabled();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), timeout })
    }

    /// Connects to the first of `addresses` that answers.
    ///
    /// # Errors
    /// The reason of the last one.
    pub(super) async fn tcp(&self, addresses: &[IpAddr], port: u16) -> Result<(TcpStream, IpAddr), String> {
        let mut reason = "no address".to_owned();
        for address in addresses {
            match timeout(self.timeout, TcpStream::connect(SocketAddr::new(*address, port))).await {
                Ok(Ok(stream)) => {
                    // Only slower without it.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, *address));
                }
                Ok(Err(error)) => reason = format!("cannot connect to {address}: {error}"),
                Err(_) => reason = format!("cannot connect to {address}: no answer in time"),
            }
        }
        Err(reason)
    }

    /// As [`Dialer::tcp`], and a TLS handshake for `https` in which the certificate must be `host`'s.
    pub(super) async fn connect(
        &self,
        scheme: Scheme,
        host: &Host,
        addresses: &[IpAddr],
        port: u16,
    ) -> Result<(Connection, IpAddr), String> {
        let (stream, address) = self.tcp(addresses, port).await?;
        if scheme == Scheme::Http {
            return Ok((Either::Left(stream), address));
        }
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|error| error.to_string())?,
            Host::Address(address) => ServerName::from(*address),
        };
        match timeout(self.timeout, self.tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok((Either::Right(Box::new(stream)), address)),
            Ok(Err(error)) => Err(format!("TLS handshake with {address}: {error}")),
            Err(_) => Err(format!("TLS handshake with {address}: no answer in time")),
        }
    }
}

fn add_roots(roots: &mut RootCertStore, path: &Path) -> Result<(), CertificateError> {
    let read = |error| CertificateError::Read { path: path.to_owned(), error };
    let invalid = |reason: String| CertificateError::Invalid { path: path.to_owned(), reason };
    let mut file = io::BufReader::new(std::fs::File::open(path).map_err(read)?);
    let mut added = 0;
    for certificate in rustls_pemfile::certs(&mut file) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        added += 1;
    }
    if added == 0 { Err(invalid("no certificate in it".into())) } else { Ok(()) }
}
