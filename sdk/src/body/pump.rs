//! Writes a streamed body to its socket.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use cloister_ipc::head;
use cloister_ipc::worker::{BodyEnd, BodyRef, FromWorker};
use http::HeaderMap;
use http_body::Body as HttpBody;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::held::stream;
use crate::error::BoxError;
use crate::invocation::Invocation;

/// Bytes of small frames gathered before a write.
const GATHER_BYTES: usize = 32 * 1024;

/// A body to be streamed.
pub(crate) struct Source<B> {
    /// What was taken of it already.
    pub(super) first: Bytes,
    /// Trailers, when they were taken: nothing of the body is left then.
    pub(super) trailers: Option<HeaderMap>,
    /// Its whole length in bytes, when known.
    pub(crate) length: Option<u64>,
    /// The rest.
    pub(super) body: Pin<Box<B>>,
}

/// Says how the body ended, also when the pump is dropped.
struct Ending {
    invocation: Arc<Invocation>,
    name: BodyRef,
    end: BodyEnd,
}

impl Ending {
    fn complete(&mut self, bytes: u64, trailers: Vec<u8>) {
        self.end = BodyEnd::Complete { bytes, trailers };
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.invocation.link.forget(self.name);
        let end = std::mem::replace(&mut self.end, BodyEnd::Aborted);
        self.invocation.link.tell(&FromWorker::BodyEnd { body: self.name, end });
    }
}

/// Streams `source` as the body `name`, whose socket must be expected already.
pub(crate) fn pump<B>(
    invocation: Arc<Invocation>,
    name: BodyRef,
    source: Source<B>,
) -> impl Future<Output = ()> + use<B>
where
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
{
    let mut ending = Ending { invocation, name, end: BodyEnd::Aborted };
    async move {
        let link = ending.invocation.link.clone();
        let Some(descriptor) = poll_fn(|cx| link.poll_descriptor(name, cx)).await else { return };
        match write(descriptor, source).await {
            Ok((bytes, trailers)) => ending.complete(bytes, trailers),
            // The owner reads it in the Worker's own log.
            Err(error) => eprintln!("cloister: a streamed body was cut short: {error}"),
        }
    }
}

async fn write<B>(descriptor: std::os::fd::OwnedFd, source: Source<B>) -> Result<(u64, Vec<u8>), BoxError>
where
    B: HttpBody + 'static,
    B::Error: Into<BoxError>,
{
    let mut socket = stream(descriptor)?;
    let Source { first, mut trailers, length, mut body } = source;
    let mut written = 0;
    // A length that was announced and is not kept would be the end of this Worker.
    let mut count = |bytes: usize| {
        written += bytes as u64;
        match length {
            Some(length) if written > length => Err(format!("it is longer than its {length} bytes")),
            _ => Ok(written),
        }
    };
    count(first.len())?;
    socket.write_all(&first).await?;
    drop(first);
    let mut small = BytesMut::new();
    while trailers.is_none() {
        // Frames that are ready are gathered; a pending one is waited for with nothing left behind.
        let next = poll_fn(|cx| Poll::Ready(poll(&mut body, cx))).await;
        let frame = match next {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                socket.write_all_buf(&mut small).await?;
                next_frame(&mut body, &socket).await?
            }
        };
        let Some(frame) = frame else { break };
        match frame?.into_data() {
            Ok(mut data) => {
                let data = data.copy_to_bytes(data.remaining());
                count(data.len())?;
                if data.len() + small.len() <= GATHER_BYTES {
                    small.extend_from_slice(&data);
                } else {
                    socket.write_all_buf(&mut small).await?;
                    socket.write_all(&data).await?;
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    socket.write_all_buf(&mut small).await?;
    let written = count(0)?;
    if let Some(length) = length.filter(|length| *length != written) {
        return Err(format!("it has {written} bytes of the {length} announced").into());
    }
    socket.shutdown().await?;
    let trailers = trailers.filter(|trailers| !trailers.is_empty());
    let trailers = trailers.map(|trailers| head::encode(&trailers)).transpose()?.unwrap_or_default();
    Ok((written, trailers))
}

/// Errors are boxed at once: a boxed one may be held across a wait.
fn poll<B>(
    body: &mut Pin<Box<B>>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<http_body::Frame<B::Data>, BoxError>>>
where
    B: HttpBody<Error: Into<BoxError>>,
{
    body.as_mut().poll_frame(cx).map_err(Into::into)
}

/// Waits for the next frame, or for the reader to go away.
async fn next_frame<B>(
    body: &mut Pin<Box<B>>,
    socket: &UnixStream,
) -> io::Result<Option<Result<http_body::Frame<B::Data>, BoxError>>>
where
    B: HttpBody<Error: Into<BoxError>>,
{
    let mut gone = std::pin::pin!(closed(socket));
    poll_fn(|cx| {
        if let Poll::Ready(frame) = poll(body, cx) {
            return Poll::Ready(Ok(frame));
        }
        gone.as_mut().poll(cx).map(Err)
    })
    .await
}

/// Ready when the other side reads no more.
async fn closed(socket: &UnixStream) -> io::Error {
    let mut nothing = [0; 1];
    loop {
        match socket.readable().await.and_then(|()| socket.try_read(&mut nothing)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return error,
            // The end of what it writes, which is nothing; or its end altogether.
            Ok(_) => match socket.try_write(&[]) {
                Ok(_) => return std::future::pending().await,
                Err(error) => return error,
            },
        }
    }
}
