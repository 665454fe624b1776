//! Small files below a folder that is held open.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, open, openat, unlinkat};

pub(super) fn folder(path: &str) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn subfolder(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(at, name, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(super) fn make(at: impl AsFd, name: &str) -> io::Result<()> {
    Ok(mkdirat(at, name, Mode::from_raw_mode(0o755))?)
}

/// Makes a folder unless it is there, and opens it.
pub(super) fn make_shared(at: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    match make(&at, name) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {}
        other => other?,
    }
    subfolder(at, name)
}

pub(super) fn remove(at: impl AsFd, name: &str) -> io::Result<()> {
    Ok(unlinkat(at, name, AtFlags::REMOVEDIR)?)
}

/// Removes a folder whose subfolders were just removed: the kernel lets go of them a little later, and
/// says busy until then.
pub(super) fn remove_emptied(at: impl AsFd, name: &str) -> io::Result<()> {
    for _ in 0..200 {
        match remove(&at, name) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => return other,
        }
    }
    remove(&at, name)
}

pub(super) fn writer(at: impl AsFd, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(openat(at, name, flags, Mode::empty())?))
}

pub(super) fn write(at: impl AsFd, name: &str, value: &str) -> io::Result<()> {
    let named = |error: io::Error| match error.raw_os_error() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => error,
    };
    writer(at, name).and_then(|mut file| file.write_all(value.as_bytes())).map_err(named)
}

pub(crate) fn read(at: impl AsFd, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut text = String::new();
    File::from(openat(at, name, flags, Mode::empty())?).read_to_string(&mut text)?;
    Ok(text)
}

/// The value behind `key` in a file of `key value` lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
