//! Tunnels: the byte stream after a 101 answer, as of a WebSocket.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use cloister_ipc::worker::{BodyRef, FromWorker};
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::body::Body;
use crate::dispatch::Placed;
use crate::error::UpgradeError;
use crate::invocation::{Hold, HoldKind, Invocation};

/// Takes the upgrade out of a request that asks for one, or out of a fetch's 101 response.
///
/// For a request: answer with status 101 (and the headers of the protocol), and let work given to
/// [`Context::wait_until`](crate::Context::wait_until) await the [`OnUpgrade`]. The request stays
/// open, without a time limit of its own, until the tunnel is closed.
///
/// To pass a tunnel on from a fetch to the client, don't take it: return the response as it is.
pub fn upgrade(message: &mut impl Upgradable) -> Result<OnUpgrade, UpgradeError> {
    message.take_upgrade().ok_or(UpgradeError::NotAsked)
}

/// A request to a Worker or a response to its fetch.
pub trait Upgradable: sealed::Sealed {
    #[doc(hidden)]
    fn take_upgrade(&mut self) -> Option<OnUpgrade>;
}

mod sealed {
    pub trait Sealed {}
    impl<B> Sealed for http::Request<B> {}
    impl Sealed for http::Response<crate::Body> {}
}

/// Marks a request that asks for an upgrade.
#[derive(Clone)]
pub(crate) struct Asked(pub(crate) Placed<Arc<Invocation>>);

impl<B> Upgradable for Request<B> {
    fn take_upgrade(&mut self) -> Option<OnUpgrade> {
        let Asked(asked) = self.extensions_mut().remove::<Asked>()?;
        let invocation = asked.take()?;
        let name = BodyRef::Tunnel(invocation.id);
        invocation.link.expect(name);
        Some(OnUpgrade::new(invocation, name))
    }
}

impl Upgradable for Response<Body> {
    fn take_upgrade(&mut self) -> Option<OnUpgrade> {
        let held = self.body_mut().take_held()?;
        let name = held.name();
        if !matches!(name, BodyRef::FetchTunnel(_)) {
            *self.body_mut() = Body::held(held);
            return None;
        }
        let invocation = held.into_tunnel()?;
        invocation.link.expect(name);
        invocation.link.tell(&FromWorker::Open { body: name });
        Some(OnUpgrade::new(invocation, name))
    }
}

/// The tunnel to come: a future of [`Upgraded`].
#[derive(Debug)]
pub struct OnUpgrade {
    invocation: Arc<Invocation>,
    name: BodyRef,
    /// The request stays open meanwhile; `None` once the tunnel has come.
    hold: Option<Hold>,
}

impl OnUpgrade {
    fn new(invocation: Arc<Invocation>, name: BodyRef) -> Self {
        let hold = Some(invocation.hold(HoldKind::Work));
        Self { invocation, name, hold }
    }
}

impl Future for OnUpgrade {
    type Output = Result<Upgraded, UpgradeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.invocation.link.poll_descriptor(self.name, cx);
        polled.map(|descriptor| {
            let hold = self.hold.take();
            let (Some(descriptor), Some(hold)) = (descriptor, hold) else {
                return Err(UpgradeError::NotSwitched);
            };
            self.invocation.link.forget(self.name);
            Ok(Upgraded { stream: crate::body::stream(descriptor)?, _hold: hold })
        })
    }
}

impl Drop for OnUpgrade {
    fn drop(&mut self) {
        if self.hold.is_some() {
            self.invocation.link.forget(self.name);
        }
    }
}

/// A byte stream in both directions.
#[derive(Debug)]
pub struct Upgraded {
    stream: UnixStream,
    /// The request is open as long as the tunnel.
    _hold: Hold,
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
