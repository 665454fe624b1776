//! A byte stream in both directions after a 101 response, whoever it comes from.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::time::timeout;

use crate::body::Body;

/// Longest that one direction goes on when the other has ended.
const HALF: Duration = Duration::from_secs(60);

/// Copies until the end, and passes that on.
async fn copied(
    mut from: ReadHalf<Box<dyn Duplex>>,
    mut to: WriteHalf<Box<dyn Duplex>>,
) -> std::io::Result<u64> {
    let count = tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await?;
    Ok(count)
}

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

    /// Takes the tunnel of a 101 response out of it; no other response has one.
    pub fn take(response: &mut Response<Body>) -> Option<Self> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return None;
        }
        if let Some(tunnel) = response.extensions_mut().remove::<Self>() {
            return Some(tunnel);
        }
        response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>().map(Self::upgrade)
    }

    /// Joins both ends and copies until both directions ended, the second at most [`HALF`] after the first;
    /// returns the bytes from the first to the second and back.
    ///
    /// # Errors
    /// When an end can't be had (was taken, or its upgrade failed), or copying failed.
    pub async fn join(self, other: Self) -> std::io::Result<(u64, u64)> {
        let ((here, _tied_here), (there, _tied_there)) = (self.open().await?, other.open().await?);
        let ((from_here, to_here), (from_there, to_there)) = (split(here), split(there));
        let (mut forth, mut back) = (pin!(copied(from_here, to_there)), pin!(copied(from_there, to_here)));
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        // Who has nothing to say any more may still listen, but not for ever to one who says nothing either.
        tokio::select! {
            forth = &mut forth => Ok((forth?, timeout(HALF, back).await.map_err(late)??)),
            back = &mut back => {
                let back = back?;
                Ok((timeout(HALF, forth).await.map_err(late)??, back))
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_switches_protocols_has_a_tunnel() {
        let answer = |status: u16| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response.extensions_mut().insert(Tunnel::new(tokio::io::duplex(1).0));
            response
        };
        assert!(Tunnel::take(&mut answer(200)).is_none());
        assert!(Tunnel::take(&mut answer(101)).is_some());
    }
}
