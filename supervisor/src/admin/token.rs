//! The token that bearers show over TCP.

use std::io;
use std::path::Path;

use http::header;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Shortest and longest token, bytes.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=512;

/// The bearer token, kept as its digest.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the first line of a file.
    ///
    /// # Errors
    /// It can't be read, or its first line is no good token.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let token = text.lines().next().unwrap_or_default().trim();
        if !TOKEN_BYTES.contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(io::Error::other(format!(
                "its first line must be a token of {} to {} visible ASCII characters, for example from `openssl rand -hex 32`",
                TOKEN_BYTES.start(),
                TOKEN_BYTES.end()
            )));
        }
        Ok(Self::of(token.as_bytes()))
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Whether these are the credentials; takes the same time for every wrong one.
    pub(super) fn permits(&self, headers: &http::HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        let (scheme, token) = given.split_at_checked(7).unwrap_or((&[], &[]));
        let right = self.0.ct_eq(&Self::of(token).0);
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_must_hold_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, good) in
            [("0123456789abcdef\nx", true), ("short\n", false), ("", false), ("é123456789abcdef", false)]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Token::read(&path).is_ok(), good, "{text}");
        }
    }
}
