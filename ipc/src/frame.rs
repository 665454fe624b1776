//! Frames on the message stream: `u32` message length, `u32` body length (little-endian), the
//! bincode message, the raw body.
//!
//! Nothing here does I/O. A sender appends frames to its buffer and flushes once, when its runtime
//! has nothing more to do; a receiver reads what has come into [`FrameReader`] and takes every
//! whole frame out of it.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};

use crate::codec::{self, CodecError};
use crate::limits::{FRAME_PREFIX_BYTES, INLINE_BODY_BYTES, MESSAGE_BYTES};

/// Why a stream of bytes is not a stream of frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A prefix claims a longer message than allowed.
    #[error("frame claims a message of {0} bytes, the limit is {MESSAGE_BYTES}")]
    Message(usize),
    /// A prefix claims a longer body than allowed.
    #[error("frame claims a body of {0} bytes, the limit is {INLINE_BODY_BYTES}")]
    Body(usize),
    /// The message inside is not one.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Appends one frame to `out`. On error `out` is unchanged.
pub fn append<M: Serialize>(message: &M, body: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let body_length = u32::try_from(body.len()).ok().filter(|_| body.len() <= INLINE_BODY_BYTES);
    let Some(body_length) = body_length else { return Err(FrameError::Body(body.len())) };
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_PREFIX_BYTES]);
    match codec::encode_into(message, out, MESSAGE_BYTES) {
        Ok(length) => {
            let length = u32::try_from(length).map_err(|_| FrameError::Message(length))?;
            out[start..start + 4].copy_from_slice(&length.to_le_bytes());
            out[start + 4..start + 8].copy_from_slice(&body_length.to_le_bytes());
            out.extend_from_slice(body);
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error.into())
        }
    }
}

/// Takes frames out of the bytes of a stream.
///
/// Holds at most one partial frame and what was read behind it: a caller reads into
/// [`space`](Self::space) and calls [`next_frame`](Self::next_frame) until it returns `None`.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

/// Room that is made for reads, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Room that is enough for a read, in bytes: more is made only when there is less.
const ROOM_BYTES: usize = 16 * 1024;

impl FrameReader {
    /// An empty reader.
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer to read more bytes into; it has room for at least 16 KiB.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < ROOM_BYTES {
            self.buffer.reserve(READ_BYTES);
        }
        &mut self.buffer
    }

    /// True when no partial frame is held: the only moment at which an end of stream is clean.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole frame, or `None` until more bytes have come. Lengths are checked before a
    /// byte behind the prefix is waited for. After an error the stream is worthless.
    pub fn next_frame<M: DeserializeOwned>(&mut self) -> Result<Option<(M, Bytes)>, FrameError> {
        let Some((message, body)) = self.next_encoded()? else { return Ok(None) };
        Ok(Some((codec::decode(&message, MESSAGE_BYTES)?, body)))
    }

    /// As [`next_frame`](Self::next_frame), the message still encoded (at most [`MESSAGE_BYTES`]).
    pub fn next_encoded(&mut self) -> Result<Option<(Bytes, Bytes)>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<FRAME_PREFIX_BYTES>() else { return Ok(None) };
        let [a, b, c, d, e, f, g, h] = *prefix;
        let message = u32::from_le_bytes([a, b, c, d]) as usize;
        let body = u32::from_le_bytes([e, f, g, h]) as usize;
        if message > MESSAGE_BYTES {
            return Err(FrameError::Message(message));
        }
        if body > INLINE_BODY_BYTES {
            return Err(FrameError::Body(body));
        }
        let whole = FRAME_PREFIX_BYTES + message + body;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole).freeze();
        frame.advance(FRAME_PREFIX_BYTES);
        let message = frame.split_to(message);
        Ok(Some((message, frame)))
    }
}
