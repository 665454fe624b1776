//! Files of a Worker: any tar archive in, a plain one out.
//!
//! What a blank unpacks is an archive written here: ustar, only folders and regular files, each
//! folder before what is in it, no owner, no time. So its reader needs to know nothing else.

use std::collections::BTreeSet;
use std::io::{self, Seek as _};
use std::path::{Component, Path, PathBuf};

use super::blobs::{BlobError, Staged, head};

/// Most entries of a bundle.
const ENTRIES: usize = 20_000;
/// Longest path in a bundle, bytes.
const PATH_BYTES: usize = 255;
/// Longest entry that only extends the next one, bytes.
const EXTENSION_BYTES: u64 = 4096;
/// Page size that a tmpfs rounds files up to.
const PAGE: u64 = 4096;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Not a tar archive, or cut short.
    #[error("files: not a whole uncompressed tar archive: {0}")]
    Archive(io::Error),
    /// Compressed.
    #[error("files: the archive is compressed ({0}): send it uncompressed")]
    Compressed(&'static str),
    /// An entry that is not allowed.
    #[error("files: entry {0:?}: {1}")]
    Entry(String, &'static str),
    /// Too many entries.
    #[error("files: more than {ENTRIES} entries")]
    TooMany,
    /// The file system failed.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A rewritten archive.
#[derive(Debug)]
pub struct Bundle {
    /// The archive.
    pub archive: Staged,
    /// Bytes its files take, each rounded up to pages.
    pub bytes: u64,
}

/// Rewrites the archive in `from` into `into`. Blocks.
pub fn repack(mut from: std::fs::File, into: Staged) -> Result<Bundle, BundleError> {
    let magic = head(&from, 6).map_err(BundleError::Archive)?;
    for (start, name) in [
        (&[0x1f, 0x8b][..], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ", "xz"),
    ] {
        if magic.starts_with(start) {
            return Err(BundleError::Compressed(name));
        }
    }
    from.rewind().map_err(BundleError::Archive)?;
    check_extensions(&from)?;
    from.rewind().map_err(BundleError::Archive)?;
    let mut builder = tar::Builder::new(into);
    let mut seen = BTreeSet::new();
    let mut bytes: u64 = 0;
    for entry in tar::Archive::new(from).entries().map_err(BundleError::Archive)? {
        let entry = entry.map_err(BundleError::Archive)?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).chars().take(PATH_BYTES).collect::<String>();
        let bad = |what| BundleError::Entry(shown.clone(), what);
        let path = clean(&entry.path().map_err(BundleError::Archive)?).map_err(bad)?;
        let kind = entry.header().entry_type();
        if kind == tar::EntryType::XGlobalHeader {
            continue;
        }
        for folder in folders(&path, kind.is_dir()) {
            if seen.insert(folder.clone()) {
                let header = header(&folder, tar::EntryType::Directory, 0, 0o555).map_err(bad)?;
                builder.append(&header, io::empty()).map_err(BundleError::Archive)?;
            }
        }
        if seen.len() > ENTRIES {
            return Err(BundleError::TooMany);
        }
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            return Err(bad("only regular files and folders are allowed, no links and no devices"));
        }
        if path.as_os_str().is_empty() || !seen.insert(path.clone()) {
            return Err(bad("is there twice"));
        }
        let executable = entry.header().mode().is_ok_and(|mode| mode & 0o111 != 0);
        let size = entry.size();
        let mode = if executable { 0o555 } else { 0o444 };
        let header = header(&path, tar::EntryType::Regular, size, mode).map_err(bad)?;
        builder.append(&header, entry).map_err(BundleError::Archive)?;
        bytes = bytes.saturating_add(size.div_ceil(PAGE).saturating_mul(PAGE));
    }
    if seen.is_empty() {
        return Err(BundleError::Archive(io::Error::other("it holds no file")));
    }
    Ok(Bundle { archive: builder.into_inner().map_err(BundleError::Archive)?, bytes })
}

/// Refuses long names and attributes that are longer than any that is of use: their reader takes them into memory
/// whole.
fn check_extensions(from: &std::fs::File) -> Result<(), BundleError> {
    for entry in tar::Archive::new(from).entries_with_seek().map_err(BundleError::Archive)?.raw(true) {
        let entry = entry.map_err(BundleError::Archive)?;
        let kind = entry.header().entry_type();
        let extends = kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions();
        if extends && entry.size() > EXTENSION_BYTES {
            let shown = format!("{kind:?} of {} bytes", entry.size());
            return Err(BundleError::Entry(shown, "names and attributes have at most 4096 bytes"));
        }
    }
    Ok(())
}

/// The path relative and without `.`; refuses what could lead elsewhere.
fn clean(path: &Path) -> Result<PathBuf, &'static str> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => clean.push(part),
            _ => return Err("absolute paths and .. are not allowed"),
        }
    }
    let bytes = clean.as_os_str().as_encoded_bytes();
    if bytes.len() > PATH_BYTES || bytes.contains(&0) {
        return Err("path is longer than 255 bytes or holds a zero byte");
    }
    Ok(clean)
}

/// The folders that must be there for `path`, outermost first.
fn folders(path: &Path, itself: bool) -> Vec<PathBuf> {
    let mut folders: Vec<_> = path.ancestors().skip(usize::from(!itself)).map(Path::to_owned).collect();
    folders.retain(|folder| !folder.as_os_str().is_empty());
    folders.reverse();
    folders
}

fn header(path: &Path, kind: tar::EntryType, size: u64, mode: u32) -> Result<tar::Header, &'static str> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_path(path).map_err(|_| "path does not fit a plain (ustar) archive: shorten it")?;
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}
