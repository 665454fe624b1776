//! Secrets at rest: AES-256-GCM under a key that lies in the state folder.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::registry::WorkerId;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// Why a secret or its key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The key file can't be read or made.
    #[error("key file {}: {error}", path.display())]
    File {
        /// The key file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The key file is not a key.
    #[error("key file {} must hold exactly {KEY_BYTES} bytes: restore it from a backup", .0.display())]
    Length(PathBuf),
    /// Others may read the key file.
    #[error("key file {} has mode {mode:o}, others may use it: run `chmod 600 {}`", path.display(), path.display())]
    Mode {
        /// The key file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Sealed under another key or for another place, or damaged.
    #[error("secret {0} can't be opened: it was sealed with another key, or is damaged")]
    Open(String),
    /// Sealing failed.
    #[error("secret {0} can't be sealed")]
    Seal(String),
}

/// Seals and opens secrets.
pub struct Vault {
    cipher: Aes256Gcm,
    fingerprint: String,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens the key file; makes one with a random key when there is none.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        let failed = |error| VaultError::File { path: path.to_owned(), error };
        let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
        match std::fs::File::open(path) {
            Ok(file) => {
                let mode = file.metadata().map_err(failed)?.mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(VaultError::Mode { path: path.to_owned(), mode });
                }
                file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).map_err(failed)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                key.extend_from_slice(&Aes256Gcm::generate_key(OsRng));
                write_key(path, &key).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        if key.len() != KEY_BYTES {
            return Err(VaultError::Length(path.to_owned()));
        }
        let mut hash = Sha256::new();
        hash.update(b"cloister key fingerprint");
        hash.update(&*key);
        let fingerprint = hex::encode(hash.finalize());
        Ok(Self { cipher: Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(&key)), fingerprint })
    }

    /// Names the key without telling it.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Seals a binding's text for this Worker and binding only.
    pub fn seal(&self, worker: &WorkerId, binding: &str, text: &str) -> Result<String, VaultError> {
        let place = place(worker, binding);
        let nonce = Aes256Gcm::generate_nonce(OsRng);
        let payload = Payload { msg: text.as_bytes(), aad: place.as_bytes() };
        let sealed = self.cipher.encrypt(&nonce, payload).map_err(|_| VaultError::Seal(place.clone()))?;
        Ok(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what [`seal`](Self::seal) made for the same Worker and binding.
    pub fn unseal(&self, worker: &WorkerId, binding: &str, sealed: &str) -> Result<String, VaultError> {
        let place = place(worker, binding);
        let failed = || VaultError::Open(place.clone());
        let bytes = STANDARD.decode(sealed).map_err(|_| failed())?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(failed)?;
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let text = self.cipher.decrypt(Nonce::from_slice(nonce), payload).map_err(|_| failed())?;
        String::from_utf8(text).map_err(|_| failed())
    }
}

/// Where a secret belongs; names hold no `#`.
fn place(worker: &WorkerId, binding: &str) -> String {
    format!("{worker}#{binding}")
}

/// Writes the key whole or not at all: a key file cut short by a crash would lock every secret.
fn write_key(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let staged = path.with_extension("new");
    match std::fs::remove_file(&staged) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    file.write_all(key)?;
    file.sync_all()?;
    std::fs::rename(&staged, path)?;
    path.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
}
