//! The message stream's socket, watched for nothing but what is waited for.
//!
//! A Unix socket tells whoever watches it for room of every single read of its peer (`unix_write_space` in
//! the kernel's net/unix/af_unix.c): a wake-up a message, for nothing. So it is watched for bytes to read
//! alone, and for room only while there is none.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::net::SendFlags;
use tokio::io::AsyncWrite;
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio_util::io::poll_read_buf;

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream {
    watched: Watched,
    /// Who waits for bytes must say so again.
    turned: bool,
}

#[derive(Debug)]
enum Watched {
    /// For bytes to read. The name says pipe, what it does is read(2).
    Bytes(pipe::Receiver),
    /// For room as well.
    Both(UnixStream),
    /// Neither: that failed.
    Broken,
}

impl Stream {
    /// Takes a socket over, on this runtime.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let watched = Watched::Bytes(pipe::Receiver::from_owned_fd_unchecked(socket)?);
        Ok(Self { watched, turned: false })
    }

    /// Reads into `buffer`; 0 at the end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match &mut self.watched {
            Watched::Bytes(socket) => poll_read_buf(Pin::new(socket), cx, buffer),
            Watched::Both(socket) => poll_read_buf(Pin::new(socket), cx, buffer),
            Watched::Broken => Poll::Ready(Err(broken())),
        }
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.watched {
                Watched::Bytes(socket) => match send(socket, bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.watch_both()?,
                    sent => return Poll::Ready(sent),
                },
                Watched::Both(socket) => return Pin::new(socket).poll_write(cx, bytes),
                Watched::Broken => return Poll::Ready(Err(broken())),
            }
        }
    }

    /// Everything is written: room is of no interest any more.
    pub(crate) fn written(&mut self) -> io::Result<()> {
        if !matches!(self.watched, Watched::Both(_)) {
            return Ok(());
        }
        if let Watched::Both(socket) = mem::replace(&mut self.watched, Watched::Broken) {
            self.turned = true;
            let socket = socket.into_std()?.into();
            self.watched = Watched::Bytes(pipe::Receiver::from_owned_fd_unchecked(socket)?);
        }
        Ok(())
    }

    /// Says something at once or not at all; true when all of it was said.
    pub(crate) fn say(&self, bytes: &[u8]) -> bool {
        let Watched::Bytes(socket) = &self.watched else { return false };
        send(socket, bytes).is_ok_and(|sent| sent == bytes.len())
    }

    /// True once after it was watched anew: whoever waits for bytes must ask again.
    pub(crate) fn has_turned(&mut self) -> bool {
        mem::take(&mut self.turned)
    }

    fn watch_both(&mut self) -> io::Result<()> {
        if let Watched::Bytes(socket) = mem::replace(&mut self.watched, Watched::Broken) {
            self.turned = true;
            let socket = std::os::unix::net::UnixStream::from(socket.into_nonblocking_fd()?);
            self.watched = Watched::Both(UnixStream::from_std(socket)?);
        }
        Ok(())
    }
}

fn send(socket: &pipe::Receiver, bytes: &[u8]) -> io::Result<usize> {
    rustix::io::retry_on_intr(|| rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT))
        .map_err(io::Error::from)
}

fn broken() -> io::Error {
    io::Error::other("the message stream can't be watched")
}
