//! A message stream's socket, watched for nothing but what is waited for.
//!
//! A Unix socket tells whoever watches it for room of every single read of its peer (`unix_write_space` in
//! the kernel's net/unix/af_unix.c): a wake-up a message, for nothing. So it is watched for bytes to read
//! alone, and for room only while there is none.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use rustix::net::SendFlags;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio_util::io::poll_read_buf;

use crate::launch::reactor::register;

/// Pause before room is looked for again where it can't be waited for, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    /// The name says pipe, what it does is watch for bytes, and read(2).
    socket: Mutex<pipe::Receiver>,
}

impl Stream {
    /// Takes over a socket that does not block, on this runtime.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        Ok(Self { socket: Mutex::new(pipe::Receiver::from_owned_fd_unchecked(socket.into())?) })
    }

    fn socket(&self) -> MutexGuard<'_, pipe::Receiver> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads into `buffer`; 0 at the end. For one reader.
    pub(super) async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|context| poll_read_buf(Pin::new(&mut *self.socket()), context, buffer)).await
    }

    /// Writes some of `bytes`, or says `WouldBlock`.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        rustix::net::send(&*self.socket(), bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
            .map_err(io::Error::from)
    }

    /// Waits until there is room.
    pub(super) async fn room(&self) -> io::Result<()> {
        let duplicate = self.socket().as_fd().try_clone_to_owned();
        room(duplicate).await
    }
}

/// Waits until there is room in a Unix socket that is not watched for it, of which this is a duplicate.
pub(super) async fn room(duplicate: io::Result<OwnedFd>) -> io::Result<()> {
    match duplicate.and_then(|socket| register(socket, Interest::WRITABLE)) {
        Ok(watched) => watched.writable().await.map(drop),
        Err(_) => {
            tokio::time::sleep(PAUSE).await;
            Ok(())
        }
    }
}
