//! The byte stream to a server after a 101 response: counted, limited, timed.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::journal::Entry;

/// The far end of a WebSocket.
pub(super) struct Wire<S> {
    inner: S,
    entry: Entry,
    limit: Option<u64>,
    read: u64,
    silence: Duration,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S> Wire<S> {
    /// At most `limit` bytes are read from `inner`, and it may be silent, both ways, for `silence`.
    pub(super) fn new(inner: S, entry: Entry, limit: Option<u64>, silence: Duration) -> Self {
        let (moved, timer) = (Instant::now(), Box::pin(sleep(silence)));
        Self { inner, entry, limit, read: 0, silence, moved, timer }
    }

    fn broke(&mut self, error: io::Error) -> Poll<io::Result<()>> {
        self.entry.broke(error.to_string());
        Poll::Ready(Err(error))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let bytes = (buffer.filled().len() - before) as u64;
                self.read = self.read.saturating_add(bytes);
                if let Some(limit) = self.limit.filter(|limit| self.read > *limit) {
                    buffer.set_filled(before);
                    let text = format!("more than {limit} bytes came from the server");
                    return self.broke(io::Error::other(text));
                }
                self.entry.bytes(bytes);
                self.moved = Instant::now();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => self.broke(error),
            Poll::Pending => loop {
                ready!(self.timer.as_mut().poll(cx));
                // Something may have been written since it was set.
                let due = self.moved + self.silence;
                if due <= Instant::now() {
                    return self.broke(io::Error::new(io::ErrorKind::TimedOut, "the tunnel fell silent"));
                }
                self.timer.as_mut().reset(due);
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        self.moved = Instant::now();
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
