//! A Worker's files: an uncompressed tar archive, unpacked by the blank itself.
//!
//! The archive is the tenant's, so it is read by a process that is already confined. Only regular
//! files and folders with plain relative names are taken (POSIX ustar, with GNU tar's numbers left
//! out): no links, no devices, no `..`. The target is a fresh tmpfs, so nothing can be in the way.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use cloister_ipc::launch::{Failure, Stage};
use rustix::fs::{Mode, OFlags, mkdirat, openat};

const BLOCK: usize = 512;

/// Unpacks `archive` below `folder`. Files get mode 0444, folders 0755.
pub(super) fn unpack(archive: impl Read, folder: &OwnedFd) -> Result<(), Failure> {
    let mut archive = io::BufReader::with_capacity(64 << 10, archive);
    let mut block = [0; BLOCK];
    while next_header(&mut archive, &mut block)? {
        let header = Header(&block);
        let name = header.name()?;
        let size = header.number(124, 12).ok_or_else(|| bad(&name, "has no valid size"))?;
        header.check(&name)?;
        match header.byte(156) {
            b'0' | 0 => file(folder, &name, &mut archive, size)?,
            b'5' => folders(folder, Path::new(&name))?,
            b'g' | b'x' => return Err(bad(&name, "is a pax header; make the archive in ustar format")),
            other => {
                let kind = char::from(other);
                return Err(bad(&name, &format!("is neither file nor folder (type {kind:?})")));
            }
        }
    }
    Ok(())
}

/// Reads the next header; false at the end: a block of zeros, or no more bytes.
fn next_header(archive: &mut impl Read, block: &mut [u8; BLOCK]) -> Result<bool, Failure> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match archive.read(rest) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(bad("the archive", "ends in the middle of a header")),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("reading the archive", &error)),
        }
    }
    Ok(block.iter().any(|byte| *byte != 0))
}

struct Header<'a>(&'a [u8; BLOCK]);

impl Header<'_> {
    fn field(&self, at: usize, length: usize) -> &[u8] {
        let field = self.0.get(at..at + length).unwrap_or_default();
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// An octal number, padded with spaces or zeros.
    fn number(&self, at: usize, length: usize) -> Option<u64> {
        let text = std::str::from_utf8(self.field(at, length)).ok()?.trim();
        if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
    }

    fn name(&self) -> Result<String, Failure> {
        let text =
            |field: &[u8]| String::from_utf8(field.to_vec()).map_err(|_| bad("a name", "is not UTF-8"));
        let name = text(self.field(0, 100))?;
        let ustar = self.field(257, 6).starts_with(b"ustar");
        let prefix = if ustar { text(self.field(345, 155))? } else { String::new() };
        let whole = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let plain = Path::new(&whole)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if whole.is_empty() || !plain {
            return Err(bad(&whole, "is not a relative name without `..`"));
        }
        Ok(whole)
    }

    /// The header's checksum: the sum of its bytes, its own field counted as spaces.
    fn check(&self, name: &str) -> Result<(), Failure> {
        let sum: u64 = self
            .0
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if self.number(148, 8) == Some(sum) { Ok(()) } else { Err(bad(name, "has a wrong checksum")) }
    }
}

fn folders(root: &OwnedFd, path: &Path) -> Result<(), Failure> {
    let mut whole = std::path::PathBuf::new();
    for part in path.components() {
        whole.push(part);
        match mkdirat(root, &whole, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(&format!("making folder {}", whole.display()), &error.into())),
        }
    }
    Ok(())
}

fn file(root: &OwnedFd, name: &str, archive: &mut impl Read, size: u64) -> Result<(), Failure> {
    if let Some(parent) = Path::new(name).parent() {
        folders(root, parent)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(root, name, flags, Mode::from_raw_mode(0o444));
    let mut file = File::from(opened.map_err(|error| failed(&format!("making file {name}"), &error.into()))?);
    let mut left = size;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..want).unwrap_or_default();
        archive.read_exact(part).map_err(|error| failed(&format!("reading {name}"), &error))?;
        file.write_all(part).map_err(|error| failed(&format!("writing {name}"), &error))?;
        left -= part.len() as u64;
    }
    let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    let skipped = io::copy(&mut archive.take(padding), &mut io::sink());
    skipped.map(drop).map_err(|error| failed("reading the archive", &error))
}

fn bad(name: &str, what: &str) -> Failure {
    let name: String = name.chars().take(200).collect();
    Failure { stage: Stage::Files, errno: nix::libc::EINVAL, what: format!("{name:?} {what}") }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    crate::failure::failure(Stage::Files, what, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, kind: u8, body: &[u8]) -> Vec<u8> {
        let mut header = [0u8; BLOCK];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(format!("{:011o}", body.len()).as_bytes());
        header[156] = kind;
        header[257..262].copy_from_slice(b"ustar");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let mut out = header.to_vec();
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
        out
    }

    fn folder(name: &str) -> (std::path::PathBuf, OwnedFd) {
        let path = std::env::temp_dir().join(format!("cloister-archive-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let opened = rustix::fs::open(&path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        (path, opened)
    }

    #[test]
    fn files_and_folders_come_out() {
        let (path, root) = folder("good");
        let mut tar = entry("./", b'5', b"");
        tar.extend(entry("a/b/", b'5', b""));
        tar.extend(entry("a/b/c.txt", b'0', b"hello"));
        tar.extend(entry("deep/down/d", b'0', &[7; 1000]));
        tar.extend([0; 2 * BLOCK]);
        unpack(&tar[..], &root).unwrap();
        assert_eq!(std::fs::read(path.join("a/b/c.txt")).unwrap(), b"hello");
        assert_eq!(std::fs::read(path.join("deep/down/d")).unwrap(), [7; 1000]);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn what_leads_out_is_refused() {
        let (path, root) = folder("bad");
        for (name, kind) in [
            ("/etc/passwd", b'0'),
            ("../up", b'0'),
            ("a/../../up", b'5'),
            ("link", b'2'),
            ("hard", b'1'),
            ("device", b'3'),
            ("fifo", b'6'),
            ("pax", b'x'),
        ] {
            assert!(unpack(&entry(name, kind, b"")[..], &root).is_err(), "{name}");
        }
        let mut torn = entry("x", b'0', b"hello");
        torn.truncate(BLOCK + 2);
        assert!(unpack(&torn[..], &root).is_err());
        let mut wrong = entry("y", b'0', b"hello");
        wrong[3] ^= 1;
        assert!(unpack(&wrong[..], &root).is_err());
        std::fs::remove_dir_all(path).unwrap();
    }
}
