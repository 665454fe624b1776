//! Every bound of the wire, in one place. A peer that exceeds one is not answered but ended.

/// Longest encoded message in a frame, in bytes (headers included, body excluded).
pub const MESSAGE_BYTES: usize = 64 * 1024;

/// Longest body that rides inside a frame, in bytes; a longer one travels by descriptor.
pub const INLINE_BODY_BYTES: usize = 64 * 1024;

/// Bytes of a frame's fixed prefix: message length and body length, `u32` little-endian each.
pub const FRAME_PREFIX_BYTES: usize = 8;

/// Longest encoded header block of a request or a response, in bytes.
pub const HEADER_BLOCK_BYTES: usize = 48 * 1024;

/// Most header fields in one block.
pub const HEADER_FIELDS: usize = 256;

/// Longest request target (path and query), in bytes.
pub const TARGET_BYTES: usize = 8 * 1024;

/// Most fetches one Worker connection may have open at once.
pub const FETCHES_IN_FLIGHT: usize = 4096;

/// Longest control message, in bytes; a `SOCK_SEQPACKET` record, so it must fit a socket buffer.
pub const CONTROL_BYTES: usize = 160 * 1024;

/// Longest launcher message, in bytes.
pub const LAUNCH_BYTES: usize = 160 * 1024;

/// Most descriptors that travel with one message.
pub const DESCRIPTORS: usize = 32;
