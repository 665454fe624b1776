//! The state folder: layout, ownership, lock.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, fchownat};

use super::blobs::{BlobError, Blobs};

/// Why the state folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Can't be read, made or written.
    #[error("state folder: {}: {error}: it must exist or be creatable, and be writable for {account}", path.display())]
    Unusable {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
        /// Account that needs it.
        account: String,
    },
    /// Another supervisor has it.
    #[error("state folder {} is used by another supervisor (process {process}): stop that one, or give this one another `state`", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Its process id, as it wrote it.
        process: String,
    },
    /// A stored file can't be handled.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// The locked state folder; the lock is held until this is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<std::fs::File>,
}

const FOLDERS: [&str; 3] = ["binaries", "bundles", "staging"];

impl StateDir {
    /// Creates what is missing (folders 0700) and takes the lock. With `owner` (as root) all of it
    /// is given to that account.
    pub fn open(path: &Path, owner: Option<(Uid, Gid)>) -> Result<Self, StateError> {
        let account = owner.map_or_else(Uid::effective, |(uid, _)| uid);
        let failed = |path: &Path| {
            let (path, account) = (path.to_owned(), format!("uid {account}"));
            move |error| StateError::Unusable { path, error, account }
        };
        for folder in std::iter::once(path.to_owned()).chain(FOLDERS.map(|name| path.join(name))) {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true).mode(0o700).create(&folder).map_err(failed(&folder))?;
        }
        let lock_path = path.join("lock");
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&lock_path).map_err(failed(&lock_path))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, Errno::EAGAIN)) => {
                let mut process = String::new();
                let known = (&mut file).take(32).read_to_string(&mut process).is_ok() && !process.is_empty();
                let process = if known { process.trim().to_owned() } else { "unknown".to_owned() };
                return Err(StateError::Locked { path: path.to_owned(), process });
            }
            Err((_, error)) => return Err(failed(&lock_path)(error.into())),
        };
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        written.map_err(failed(&lock_path))?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(path, private).map_err(failed(path))?;
        if let Some(owner) = owner {
            give(path, owner).map_err(failed(path))?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database file.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.path.join("cloister.db")
    }

    /// The file of the key that seals secrets.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.path.join("secrets.key")
    }

    /// The content-addressed files.
    pub fn blobs(&self) -> Result<Blobs, StateError> {
        let [binaries, bundles, staging] = FOLDERS.map(|name| self.path.join(name));
        Ok(Blobs::open(binaries, bundles, staging)?)
    }
}

/// Gives the folder, what is in it and in its folders to an account; follows no link.
fn give(path: &Path, (uid, gid): (Uid, Gid)) -> io::Result<()> {
    let own = |path: &Path| {
        fchownat(nix::fcntl::AT_FDCWD, path, Some(uid), Some(gid), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
    };
    own(path)?;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        own(&entry.path())?;
        if entry.file_type()?.is_dir() {
            for inner in std::fs::read_dir(entry.path())? {
                own(&inner?.path())?;
            }
        }
    }
    Ok(())
}
