//! Records to a Worker on its control socket, without ever blocking.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};

use cloister_ipc::control::{Control as Record, EnvBinding, Start};
use cloister_ipc::limits::CONTROL_BYTES;
use cloister_ipc::{PROTOCOL, codec, descriptors};

use super::stream::room;
use crate::registry::{Binding, Deployed};

/// Records a Worker may leave unread beyond what the socket holds.
const BACKLOG: usize = 256;

/// One connection's handle on a Worker's control socket.
#[derive(Debug)]
pub struct Control {
    socket: Arc<OwnedFd>,
    backlog: Mutex<VecDeque<(Vec<u8>, OwnedFd)>>,
}

impl Control {
    /// Over the process's control socket, which from now on does not block.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(socket: Arc<OwnedFd>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, backlog: Mutex::default() })
    }

    /// Sends a record with its descriptor, or keeps it until the Worker has read others. True when
    /// it is kept: then [`Control::drain`] must run.
    ///
    /// # Errors
    /// The socket is closed, or too much is kept already.
    pub(super) fn send(&self, record: &Record, descriptor: OwnedFd) -> io::Result<bool> {
        let record = codec::encode(record, CONTROL_BYTES).map_err(io::Error::other)?;
        let mut backlog = self.lock();
        if backlog.is_empty() {
            match descriptors::send(&self.socket, &record, &[descriptor.as_fd()]) {
                Ok(()) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        if backlog.len() >= BACKLOG {
            return Err(io::Error::other("the Worker does not read its control socket"));
        }
        backlog.push_back((record, descriptor));
        Ok(true)
    }

    /// Sends what is kept, as the Worker reads.
    ///
    /// # Errors
    /// The socket is closed.
    pub(super) async fn drain(&self) -> io::Result<()> {
        while !self.send_kept()? {
            room(self.socket.try_clone()).await?;
        }
        Ok(())
    }

    /// Sends of what is kept as much as there is room for; true when nothing is left.
    fn send_kept(&self) -> io::Result<bool> {
        let mut backlog = self.lock();
        while let Some((record, descriptor)) = backlog.front() {
            match descriptors::send(&self.socket, record, &[descriptor.as_fd()]) {
                Ok(()) => drop(backlog.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(Vec<u8>, OwnedFd)>> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when an error means that the peer is gone: not the supervisor's trouble.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// A connected pair of stream sockets, ours non-blocking and registered, and the Worker's.
///
/// # Errors
/// What the kernel says.
pub(super) fn pair() -> io::Result<(StdStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs.into()))
}

/// The first record for a Worker of this version.
///
/// # Errors
/// When its bindings don't fit a record.
pub fn start_record(deployed: &Deployed) -> io::Result<Vec<u8>> {
    let env = deployed.bindings.iter().map(|(name, binding)| (name.clone(), seen(binding))).collect();
    let start = Start {
        protocol: PROTOCOL,
        namespace: deployed.id.namespace.as_deref().unwrap_or_default().to_owned(),
        worker: deployed.id.name.as_ref().to_owned(),
        version: deployed.version.as_ref().to_owned(),
        env,
    };
    codec::encode(&Record::Start(start), CONTROL_BYTES).map_err(io::Error::other)
}

/// A binding as the Worker sees it.
fn seen(binding: &Binding) -> EnvBinding {
    match binding {
        Binding::PlainText(text) => EnvBinding::Text(text.clone()),
        Binding::Secret(text) => EnvBinding::Secret(text.clone()),
        Binding::Json(text) => EnvBinding::Json(text.clone()),
        Binding::DispatchNamespace { namespace, .. } => {
            EnvBinding::DispatchNamespace { namespace: namespace.as_ref().to_owned() }
        }
        Binding::Service { service } => EnvBinding::Service { service: service.as_ref().to_owned() },
    }
}
