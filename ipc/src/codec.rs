//! The only place that calls bincode.
//!
//! A message is decoded with a limit, and must use up every byte it came in: bincode alone
//! allocates what a length prefix claims and accepts trailing bytes.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::limits::LAUNCH_BYTES;

/// What bincode may account for in one message, in bytes. It allocates what the length prefix of a
/// text claims as long as that fits: so a decoder is given a small multiple of the bytes there are,
/// in steps because the limit is part of its type. For a list serde reserves at most 1 MiB.
const CEILING: usize = 4 * LAUNCH_BYTES;

type Config<const LIMIT: usize> = Configuration<LittleEndian, Fixint, Limit<LIMIT>>;

const fn config<const LIMIT: usize>() -> Config<LIMIT> {
    bincode::config::standard().with_little_endian().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than the cap for this kind of message.
    #[error("message of {length} bytes, over the limit of {limit}")]
    TooLong {
        /// Length found, in bytes.
        length: usize,
        /// Cap, in bytes.
        limit: usize,
    },
    /// Bytes were left after the message.
    #[error("{0} bytes follow the message")]
    Trailing(usize),
    /// Not the encoding of such a message.
    #[error("not a valid message: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// The message can't be encoded (over the ceiling).
    #[error("message can't be encoded: {0}")]
    Encode(#[from] bincode::error::EncodeError),
}

/// Appends the encoding of `message` to `out`; on error, or past `limit` bytes, `out` is unchanged.
pub fn encode_into<M: Serialize>(message: &M, out: &mut Vec<u8>, limit: usize) -> Result<usize, CodecError> {
    let start = out.len();
    let result = bincode::serde::encode_into_std_write(message, out, config::<CEILING>());
    let length = out.len() - start;
    match result {
        Ok(_) if length <= limit => Ok(length),
        Ok(_) => {
            out.truncate(start);
            Err(CodecError::TooLong { length, limit })
        }
        Err(error) => {
            out.truncate(start);
            Err(error.into())
        }
    }
}

/// Encodes `message` into a fresh buffer of at most `limit` bytes.
pub fn encode<M: Serialize>(message: &M, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(256);
    encode_into(message, &mut out, limit)?;
    Ok(out)
}

/// Decodes exactly one message from exactly `bytes`, which may hold at most `limit`.
pub fn decode<M: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<M, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLong { length: bytes.len(), limit });
    }
    let decoded = match bytes.len() {
        0..=1024 => bincode::serde::decode_from_slice(bytes, config::<4096>()),
        1025..=16_384 => bincode::serde::decode_from_slice(bytes, config::<65_536>()),
        _ => bincode::serde::decode_from_slice(bytes, config::<CEILING>()),
    };
    whole(decoded?, bytes)
}

/// As [`decode`], for a message whose texts stay where they are.
pub fn decode_borrowed<'a, M: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<M, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLong { length: bytes.len(), limit });
    }
    whole(bincode::serde::borrow_decode_from_slice(bytes, config::<CEILING>())?, bytes)
}

/// The message, when it used every byte.
fn whole<M>((message, used): (M, usize), bytes: &[u8]) -> Result<M, CodecError> {
    match bytes.len() - used {
        0 => Ok(message),
        rest => Err(CodecError::Trailing(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32, 64).unwrap();
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes, 64), Err(CodecError::Trailing(1))));
    }

    #[test]
    fn a_length_prefix_does_not_allocate() {
        let claim = u64::MAX.to_le_bytes();
        assert!(matches!(decode::<Vec<u8>>(&claim, 64), Err(CodecError::Decode(_))));
    }

    #[test]
    fn over_the_cap_leaves_the_buffer_as_it_was() {
        let mut out = vec![1, 2, 3];
        assert!(matches!(encode_into(&vec![0u8; 100], &mut out, 50), Err(CodecError::TooLong { .. })));
        assert_eq!(out, [1, 2, 3]);
    }
}
