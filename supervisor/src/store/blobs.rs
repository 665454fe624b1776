//! Content-addressed files: binaries and bundles, named by their SHA-256.
//!
//! A file appears under its name whole and synced, or not at all. Binaries have mode 0511: the
//! supervisor reads them, a Worker (another uid) may only execute one, and can't even reach the
//! folder; being unreadable to its own process is what keeps a Worker non-dumpable over exec.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem::Finder;
use sha2::{Digest as _, Sha256};

use super::StoreError;
use crate::registry::Digest;

/// Why a blob can't be kept or used.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Larger than allowed.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
    /// Not there, or not what its name says.
    #[error("stored file {} is damaged ({what}): restore it from a backup or deploy again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BlobError + '_ {
    move |error| BlobError::Io { path: path.to_owned(), error }
}

/// What kind of file; each has its folder and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Worker's program.
    Binary,
    /// A Worker's files, a tar archive.
    Bundle,
}

type Pins = Arc<Mutex<BTreeMap<Digest, usize>>>;

/// The content-addressed files.
#[derive(Debug, Clone)]
pub struct Blobs {
    binaries: PathBuf,
    bundles: PathBuf,
    staging: PathBuf,
    pins: Pins,
}

impl Blobs {
    /// Files in these folders, which exist; what an earlier run left in `staging` is removed.
    pub(super) fn open(binaries: PathBuf, bundles: PathBuf, staging: PathBuf) -> Result<Self, BlobError> {
        for entry in std::fs::read_dir(&staging).map_err(at(&staging))? {
            let path = entry.map_err(at(&staging))?.path();
            std::fs::remove_file(&path).map_err(at(&path))?;
        }
        Ok(Self { binaries, bundles, staging, pins: Pins::default() })
    }

    const fn folder(&self, kind: Kind) -> &PathBuf {
        match kind {
            Kind::Binary => &self.binaries,
            Kind::Bundle => &self.bundles,
        }
    }

    /// Where a blob lies.
    #[must_use]
    pub fn path(&self, kind: Kind, digest: &Digest) -> PathBuf {
        self.folder(kind).join(digest.as_str())
    }

    /// A new file to write, at most `limit` bytes; `marker` is looked for in what is written.
    pub fn stage(&self, limit: u64, marker: &'static [u8]) -> Result<Staged, BlobError> {
        let path = self.staging.join(uuid::Uuid::now_v7().to_string());
        let mut options = std::fs::OpenOptions::new();
        let file =
            options.read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(at(&path))?;
        Ok(Staged {
            path: Some(path),
            file,
            hash: Sha256::new(),
            size: 0,
            limit,
            finder: Finder::new(marker),
            tail: Vec::new(),
            marked: false,
        })
    }

    /// Keeps a staged file under its digest, synced. It won't be collected while the returned
    /// value lives, so commit what refers to it before dropping that.
    pub fn keep(&self, mut staged: Staged, kind: Kind) -> Result<Pinned, BlobError> {
        let digest = staged.digest()?;
        let size = staged.size;
        let pinned = Pinned::new(digest.clone(), size, Arc::clone(&self.pins));
        let path = self.path(kind, &digest);
        let Some(from) = staged.path.take() else { return Ok(pinned) };
        let mode = if kind == Kind::Binary { 0o511 } else { 0o400 };
        let kept = (|| {
            // A whole one stays, as processes run it; a damaged one is healed by what has come.
            if self.check(kind, &digest, size).is_ok() && self.verify(kind, &digest).is_ok() {
                return std::fs::remove_file(&from).map_err(at(&from));
            }
            staged.file.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(at(&from))?;
            staged.file.sync_all().map_err(at(&from))?;
            std::fs::rename(&from, &path).map_err(at(&path))?;
            let folder = self.folder(kind);
            std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
        })();
        if kept.is_err() {
            staged.path = Some(from);
        }
        kept.map(|()| pinned)
    }

    /// Cheap check: there, a regular file, of the right length.
    pub fn check(&self, kind: Kind, digest: &Digest, size: u64) -> Result<(), BlobError> {
        let path = self.path(kind, digest);
        let damaged = |what: String| Err(BlobError::Damaged { path: path.clone(), what });
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() => damaged("not a regular file".to_owned()),
            Ok(found) if found.len() != size => {
                damaged(format!("{} bytes long, {size} were stored", found.len()))
            }
            Ok(_) => Ok(()),
            Err(error) => damaged(error.to_string()),
        }
    }

    /// Full check: the content has the digest that names it. Reads the whole file.
    pub fn verify(&self, kind: Kind, digest: &Digest) -> Result<(), BlobError> {
        let path = self.path(kind, digest);
        let mut file = std::fs::File::open(&path)
            .map_err(|error| BlobError::Damaged { path: path.clone(), what: error.to_string() })?;
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(at(&path))?;
        let found = hex::encode(hash.finalize());
        if found == digest.as_str() {
            return Ok(());
        }
        Err(BlobError::Damaged { path, what: format!("its SHA-256 is {found}") })
    }

    /// Removes a blob (of either kind) unless it is pinned or `used` says so.
    pub fn collect(
        &self,
        digest: &Digest,
        used: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        // Held while looking and unlinking: an upload pins before it looks for the file.
        let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.contains_key(digest) || used()? {
            return Ok(());
        }
        for kind in [Kind::Binary, Kind::Bundle] {
            let path = self.path(kind, digest);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "unused file can't be removed");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Digests of all files that are there.
    pub fn list(&self) -> Result<Vec<Digest>, BlobError> {
        let mut digests = Vec::new();
        for folder in [&self.binaries, &self.bundles] {
            for entry in std::fs::read_dir(folder).map_err(at(folder))? {
                let name = entry.map_err(at(folder))?.file_name();
                digests.extend(name.to_str().and_then(Digest::parse));
            }
        }
        Ok(digests)
    }
}

/// A file being written; removed when dropped without being kept.
pub struct Staged {
    path: Option<PathBuf>,
    file: std::fs::File,
    hash: Sha256,
    size: u64,
    limit: u64,
    finder: Finder<'static>,
    tail: Vec<u8>,
    marked: bool,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged").field("path", &self.path).field("size", &self.size).finish_non_exhaustive()
    }
}

impl Staged {
    /// Appends bytes; an error leaves the file worthless.
    pub fn append(&mut self, chunk: &[u8]) -> Result<(), BlobError> {
        self.size += chunk.len() as u64;
        if self.size > self.limit {
            return Err(BlobError::TooLarge(self.limit));
        }
        let written = self.file.write_all(chunk);
        written.map_err(|error| BlobError::Io { path: self.path.clone().unwrap_or_default(), error })?;
        self.hash.update(chunk);
        self.look_for_marker(chunk);
        Ok(())
    }

    /// Finds the marker also where it lies across two chunks.
    fn look_for_marker(&mut self, chunk: &[u8]) {
        let Some(overlap) = self.finder.needle().len().checked_sub(1).filter(|_| !self.marked) else {
            return;
        };
        let head = chunk.get(..overlap).unwrap_or(chunk);
        self.tail.extend_from_slice(head);
        self.marked = self.finder.find(&self.tail).is_some() || self.finder.find(chunk).is_some();
        if chunk.len() >= overlap {
            self.tail.clear();
            self.tail.extend_from_slice(chunk.get(chunk.len() - overlap..).unwrap_or_default());
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(overlap));
        }
    }

    /// Bytes written.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Whether the marker was seen.
    #[must_use]
    pub const fn marked(&self) -> bool {
        self.marked
    }

    /// A second handle to read what was written, from the start.
    pub fn reader(&self) -> Result<std::fs::File, BlobError> {
        let path = self.path.clone().unwrap_or_default();
        std::fs::File::open(&path).map_err(at(&path))
    }

    fn digest(&self) -> Result<Digest, BlobError> {
        let text = hex::encode(self.hash.clone().finalize());
        let path = self.path.clone().unwrap_or_default();
        Digest::parse(&text).ok_or_else(|| BlobError::Damaged { path, what: "no digest".to_owned() })
    }
}

impl io::Write for Staged {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        self.append(chunk).map(|()| chunk.len()).map_err(io::Error::other)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "staged file can't be removed");
        }
    }
}

/// A kept blob that can't be collected while this lives.
#[derive(Debug)]
pub struct Pinned {
    digest: Digest,
    size: u64,
    pins: Pins,
}

impl Pinned {
    fn new(digest: Digest, size: u64, pins: Pins) -> Self {
        *pins.lock().unwrap_or_else(PoisonError::into_inner).entry(digest.clone()).or_default() += 1;
        Self { digest, size, pins }
    }

    /// Its digest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Its length, bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

/// Reads the first bytes of a file, at most `limit`.
pub(super) fn head(mut file: &std::fs::File, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; limit];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
