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
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    /// Room that is made for the next read, in bytes.
    room: usize,
    /// The last read left none.
    filled: bool,
    /// How often in a row more than three quarters of it were free.
    free: u32,
}

/// Most and least room that is made for a read, in bytes: each stream of an idle Worker holds it.
const ROOM_BYTES: std::ops::RangeInclusive<usize> = 4 * 1024..=64 * 1024;

/// As often as this must there be room in plenty, until less of it is enough.
const FREE_TIMES: u32 = 16;

impl Default for FrameReader {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), room: *ROOM_BYTES.start(), filled: false, free: 0 }
    }
}

impl FrameReader {
    /// An empty reader.
    pub fn new() -> Self {
        Self::default()
    }

    /// The buffer to read more bytes into; it has room for at least 1 KiB. There is more after a read that left
    /// none.
    pub fn space(&mut self) -> &mut BytesMut {
        if std::mem::take(&mut self.filled) {
            self.room = (4 * self.room).min(*ROOM_BYTES.end());
            self.free = 0;
        } else if 4 * (self.buffer.capacity() - self.buffer.len()) > 3 * self.room {
            self.free = self.free.saturating_add(1);
        } else {
            self.free = 0;
        }
        if self.free >= FREE_TIMES && self.room > *ROOM_BYTES.start() && self.buffer.is_empty() {
            *self = Self::new();
        }
        if self.buffer.capacity() - self.buffer.len() < self.room / 4 {
            self.buffer.reserve(self.room);
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
        self.filled |= !self.buffer.is_empty() && self.buffer.len() == self.buffer.capacity();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of frames with bodies of `body` bytes.
    fn frames(count: usize, body: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            append(&0u8, &vec![b'x'; body], &mut bytes).unwrap();
        }
        bytes
    }

    /// Reads `bytes` as a socket gives them: as much as there is room for. Returns the room of the last read.
    fn read(reader: &mut FrameReader, mut bytes: &[u8]) -> usize {
        let mut room = 0;
        while !bytes.is_empty() {
            let space = reader.space();
            room = space.capacity() - space.len();
            assert!(room >= 1024, "{room}");
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            space.extend_from_slice(now);
            bytes = later;
            while reader.next_frame::<u8>().unwrap().is_some() {}
        }
        room
    }

    #[test]
    fn room_is_made_for_what_comes_and_given_back() {
        let mut reader = FrameReader::new();
        let few = read(&mut reader, &frames(1, 10));
        assert!(few <= 4096, "{few}: every idle Worker holds it");
        let many = read(&mut reader, &frames(20, INLINE_BODY_BYTES));
        assert!(many > 16 * 1024, "{many}");
        assert!(read(&mut reader, &frames(1000, 1000)) > 4096, "there is still much to read");
        for _ in 0..1000 {
            read(&mut reader, &frames(1, 10));
        }
        assert!(read(&mut reader, &frames(1, 10)) <= 4096);
        assert!(reader.is_empty());
    }
}
