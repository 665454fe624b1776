//! A byte stream in both directions after a 101 response, whoever it comes from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use http::Response;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::body::Body;

/// Reads and writes.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// The other end of an upgraded connection; travels in the extensions of a 101 response.
#[derive(Clone)]
pub struct Tunnel(Arc<Mutex<Option<Source>>>);

struct Source {
    end: End,
    /// Dropped when the tunnel is over.
    tied: Vec<Box<dyn Send>>,
}

enum End {
    Stream(Box<dyn Duplex>),
    Upgrade(hyper::upgrade::OnUpgrade),
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

impl Tunnel {
    /// A tunnel to `stream`.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::of(End::Stream(Box::new(stream)))
    }

    /// A tunnel to what a request's or response's connection becomes.
    #[must_use]
    pub fn upgrade(upgrade: hyper::upgrade::OnUpgrade) -> Self {
        Self::of(End::Upgrade(upgrade))
    }

    fn of(end: End) -> Self {
        Self(Arc::new(Mutex::new(Some(Source { end, tied: Vec::new() }))))
    }

    /// Keeps `thing` until the tunnel is over.
    #[must_use]
    pub fn with(self, thing: impl Send + 'static) -> Self {
        if let Some(source) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            source.tied.push(Box::new(thing));
        }
        self
    }

    /// Takes the tunnel of a 101 response out of it.
    pub fn take(response: &mut Response<Body>) -> Option<Self> {
        if let Some(tunnel) = response.extensions_mut().remove::<Self>() {
            return Some(tunnel);
        }
        response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>().map(Self::upgrade)
    }

    /// Joins both ends and copies until both directions ended; returns the bytes from the first to
    /// the second and back.
    ///
    /// # Errors
    /// When an end can't be had (was taken, or its upgrade failed), or copying failed.
    pub async fn join(self, other: Self) -> std::io::Result<(u64, u64)> {
        let ((mut here, _tied_here), (mut there, _tied_there)) = (self.open().await?, other.open().await?);
        tokio::io::copy_bidirectional(&mut here, &mut there).await
    }

    async fn open(self) -> std::io::Result<(Box<dyn Duplex>, Vec<Box<dyn Send>>)> {
        let source = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Source { end, tied }) = source else {
            return Err(std::io::Error::other("the upgraded connection was taken already"));
        };
        match end {
            End::Stream(stream) => Ok((stream, tied)),
            End::Upgrade(upgrade) => {
                let upgraded = upgrade.await.map_err(std::io::Error::other)?;
                Ok((Box::new(TokioIo::new(upgraded)), tied))
            }
        }
    }
}
