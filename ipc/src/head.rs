//! Header blocks: how header fields travel inside a message.
//!
//! For each field `u16` name length, `u16` value length (little-endian), name, value. One
//! allocation a block whatever the number of fields, and a block can be passed on without being
//! taken apart. [`decode`] is the gate: what it returns are valid HTTP fields.

use bytes::Bytes;
use http::header::{HOST, InvalidHeaderName};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::limits::{HEADER_BLOCK_BYTES, HEADER_FIELDS};

/// Why bytes are not a header block.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Longer than [`HEADER_BLOCK_BYTES`].
    #[error("header block of {0} bytes, the limit is {HEADER_BLOCK_BYTES}")]
    TooLong(usize),
    /// More fields than [`HEADER_FIELDS`].
    #[error("more than {HEADER_FIELDS} header fields")]
    TooMany,
    /// Lengths don't add up.
    #[error("header block ends inside a field")]
    Truncated,
    /// Not a field name (RFC 9110, 5.1).
    #[error("not a header name: {0:?}")]
    Name(String),
    /// Not a field value (RFC 9110, 5.5).
    #[error("value of header {0} has a forbidden byte")]
    Value(HeaderName),
}

/// Encodes `headers` as a block.
pub fn encode(headers: &HeaderMap) -> Result<Vec<u8>, HeadError> {
    if headers.len() > HEADER_FIELDS {
        return Err(HeadError::TooMany);
    }
    let size: usize = headers.iter().map(|(name, value)| 4 + name.as_str().len() + value.len()).sum();
    if size > HEADER_BLOCK_BYTES {
        return Err(HeadError::TooLong(size));
    }
    let mut block = Vec::with_capacity(size);
    for (name, value) in headers {
        let lengths = (u16::try_from(name.as_str().len()), u16::try_from(value.len()));
        let (Ok(name_length), Ok(value_length)) = lengths else { return Err(HeadError::TooLong(size)) };
        block.extend_from_slice(&name_length.to_le_bytes());
        block.extend_from_slice(&value_length.to_le_bytes());
        block.extend_from_slice(name.as_str().as_bytes());
        block.extend_from_slice(value.as_bytes());
    }
    Ok(block)
}

/// A field's name. Those that the front door adds to every request are not looked at byte by byte.
fn name(bytes: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
    const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    match bytes {
        b"host" => Ok(HOST),
        b"x-forwarded-for" => Ok(FORWARDED_FOR),
        b"x-forwarded-proto" => Ok(FORWARDED_PROTO),
        b"traceparent" => Ok(TRACEPARENT),
        other => HeaderName::from_bytes(other),
    }
}

/// True when `block` is what [`encode`] makes of `headers`.
#[must_use]
pub fn is_block_of(headers: &HeaderMap, block: &[u8]) -> bool {
    let mut rest = block;
    let same = headers.iter().all(|(name, value)| {
        let Some((&[a, b, c, d], after)) = rest.split_first_chunk::<4>() else { return false };
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let lengths = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])].map(usize::from);
        if lengths != [name.len(), value.len()] || !after.starts_with(name) {
            return false;
        }
        let after = &after[name.len()..];
        rest = after.get(value.len()..).unwrap_or_default();
        after.starts_with(value)
    });
    same && rest.is_empty()
}

/// Decodes and validates a block. Field values share the block's memory.
pub fn decode(block: impl Into<Bytes>) -> Result<HeaderMap, HeadError> {
    let mut rest: Bytes = block.into();
    if rest.len() > HEADER_BLOCK_BYTES {
        return Err(HeadError::TooLong(rest.len()));
    }
    // Room for what few messages have more of: a map that grows moves and hashes all again.
    let mut headers = HeaderMap::with_capacity(if rest.is_empty() { 0 } else { 6 });
    let mut fields = 0;
    while !rest.is_empty() {
        let Some(&[a, b, c, d]) = rest.first_chunk::<4>() else { return Err(HeadError::Truncated) };
        let name_length = usize::from(u16::from_le_bytes([a, b]));
        let value_length = usize::from(u16::from_le_bytes([c, d]));
        if rest.len() < 4 + name_length + value_length {
            return Err(HeadError::Truncated);
        }
        fields += 1;
        if fields > HEADER_FIELDS {
            return Err(HeadError::TooMany);
        }
        let field = rest.split_to(4 + name_length + value_length);
        let name = &field[4..4 + name_length];
        let name = self::name(name)
            .map_err(|_| HeadError::Name(String::from_utf8_lossy(name).chars().take(80).collect()))?;
        let value = HeaderValue::from_maybe_shared(field.slice(4 + name_length..))
            .map_err(|_| HeadError::Value(name.clone()))?;
        headers.append(name, value);
    }
    Ok(headers)
}
