//! The control socket: what the supervisor tells the process, and the descriptors it gives.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net;
use std::task::{Context, Poll, ready};

use cloister_ipc::control::{CONTROL_ENV, Control};
use cloister_ipc::limits::CONTROL_BYTES;
use cloister_ipc::{codec, descriptors};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use crate::error::Error;

/// The control socket that the environment names.
pub(crate) fn inherited() -> Result<OwnedFd, Error> {
    // Keeps the marker in the program: an upload that does not tell its contract is known by it.
    std::hint::black_box(&cloister_ipc::SDK_MARKER);
    let found = std::env::var(CONTROL_ENV).unwrap_or_else(|_| "not set".to_owned());
    match found.parse() {
        Ok(number) if number > 2 => own(number).map_err(Error::io("take the control socket")),
        _ => Err(Error::NoSupervisor { variable: CONTROL_ENV, found }),
    }
}

/// An owned copy of an inherited descriptor. Sending it to ourselves makes one without unsafe
/// code, and fails cleanly when there is no such descriptor.
fn own(number: RawFd) -> io::Result<OwnedFd> {
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let rights = [number];
    let message = [ControlMessage::ScmRights(&rights)];
    sendmsg::<()>(near.as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::empty(), None)?;
    let (_, copies) = descriptors::receive(&far, &mut [0])?;
    copies.into_iter().next().ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A record and its descriptors.
pub(crate) type Record = (Control, Vec<OwnedFd>);

/// The control socket on this runtime.
pub(crate) struct ControlSocket {
    /// A sequenced-packet socket is read like a datagram one.
    socket: UnixDatagram,
    /// As long as the longest record; its pages are touched only by long ones.
    buffer: Vec<u8>,
}

impl ControlSocket {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, buffer: vec![0; CONTROL_BYTES] })
    }

    /// The next record and its descriptors; `None` when the supervisor is gone.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Record>, Error>> {
        let (length, descriptors) = loop {
            ready!(self.socket.poll_recv_ready(cx)).map_err(Error::io("read the control socket"))?;
            let receive = || descriptors::receive(&self.socket, &mut self.buffer);
            match self.socket.try_io(Interest::READABLE, receive) {
                Ok(received) => break received,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => break (0, Vec::new()),
                    _ => {
                        return Poll::Ready(Err(Error::Io {
                            what: "read the control socket",
                            source: error,
                        }));
                    }
                },
            }
        };
        if length == 0 {
            return Poll::Ready(Ok(None));
        }
        let record = self.buffer.get(..length).unwrap_or_default();
        let control = codec::decode(record, CONTROL_BYTES)?;
        Poll::Ready(Ok(Some((control, descriptors))))
    }
}
