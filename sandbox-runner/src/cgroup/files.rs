//! Small files below a folder that is held open.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use cloister_ipc::launch::CgroupLimit;
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
/// says busy until then. An error tells what is in the way at `path`, where it is.
pub(super) fn remove_emptied(at: impl AsFd, name: &str, path: &str) -> io::Result<()> {
    for _ in 0..200 {
        match remove(&at, name) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return Ok(()),
            other => return other,
        }
    }
    remove(&at, name).map_err(|error| {
        let folder = subfolder(&at, name);
        let left =
            folder.as_ref().map_or_else(|_| Vec::new(), |folder| subfolders(folder).unwrap_or_default());
        let told = left.iter().map(|inner| {
            let inside = folder.as_ref().map(|folder| read(folder, &format!("{inner}/cgroup.procs")));
            format!("{inner} (processes: {inside:?})")
        });
        io::Error::other(format!("{path}: {error}; in it: {}", told.collect::<Vec<_>>().join(", ")))
    })
}

/// The folders in a folder.
pub(super) fn subfolders(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type() == rustix::fs::FileType::Directory && name != "." && name != ".." {
            names.push(name);
        }
    }
    Ok(names)
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

/// Writes limits and reads them back. One that the kernel did not take as it is stops here; it rounds
/// sizes down to whole pages.
pub(super) fn set(at: impl AsFd, prefix: &str, file: &str, value: &str) -> io::Result<CgroupLimit> {
    let name = format!("{prefix}{file}");
    write(&at, &name, value)?;
    let limit = CgroupLimit { file: file.into(), value: read(&at, &name)?.trim().into() };
    if !taken(value, &limit.value) {
        return Err(io::Error::other(format!("the kernel made {} of it", limit.value)));
    }
    Ok(limit)
}

fn taken(asked: &str, told: &str) -> bool {
    let page = rustix::param::page_size() as u64;
    let number = |text: &str| text.parse::<u64>();
    match (number(asked), number(told)) {
        (Ok(asked), Ok(told)) => told == asked || told == asked / page * page,
        _ => asked == told,
    }
}

/// What those of `names` say that are there.
pub(super) fn limits(at: impl AsFd, prefix: &str, names: &[&str]) -> io::Result<Vec<CgroupLimit>> {
    let mut limits = Vec::new();
    for file in names {
        match read(&at, &format!("{prefix}{file}")) {
            Ok(text) => limits.push(CgroupLimit { file: (*file).into(), value: text.trim().into() }),
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(limits)
}

/// The value behind `key` in a file of `key value` lines.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_taken_as_it_is_or_rounded_to_pages() {
        assert!(taken("50000 100000", "50000 100000") && !taken("50000 100000", "max 100000"));
        assert!(taken("67108864", "67108864"));
        let page = rustix::param::page_size() as u64;
        assert!(taken(&(page * 3 + 7).to_string(), &(page * 3).to_string()));
        assert!(!taken(&(page * 3).to_string(), &(page * 2).to_string()));
        assert!(!taken("64", "max"));
    }
}
