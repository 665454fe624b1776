//! What every contestant answers, so that all of them do the same work:
//!
//! - `GET /b/N` gives `N` bytes (at most 16 MiB), `200`;
//! - `POST /b/N` reads the whole body, then gives `N` bytes, `200`;
//! - anything else gives `404`.

#![forbid(unsafe_code)]

pub mod listen;

use bytes::Bytes;

/// Most bytes that `/b/N` gives.
pub const MOST_BYTES: usize = 16 << 20;

/// Parses `/b/N`; `None` is a `404`.
#[must_use]
pub fn wanted(path: &str) -> Option<usize> {
    path.strip_prefix("/b/")?.parse().ok().filter(|n| *n <= MOST_BYTES)
}

/// Bodies by length, made once for each length, so that no contestant is measured by its `memset`.
#[derive(Debug, Default)]
pub struct Bodies {
    largest: Bytes,
}

impl Bodies {
    /// `length` bytes, shared with earlier answers.
    pub fn get(&mut self, length: usize) -> Bytes {
        if self.largest.len() < length {
            self.largest = vec![b'x'; length].into();
        }
        self.largest.slice(..length)
    }
}
