//! Names of launchers' folders, and those of launchers that died.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::files;

const PREFIX: &str = "cloister.";

/// Folder of all launchers below the service's own; it stays. A launcher that gave up its capabilities can
/// remove its folder only from one that its user may write, which a hierarchy's root (mode 0555) is not.
pub(super) const SHARED: &str = "cloister-launchers";

/// The name of this launcher's folder: no other process ever has the same pid and start time.
pub(super) fn own_name(proc: BorrowedFd<'_>) -> io::Result<String> {
    let pid = std::process::id();
    let started = started(proc, pid).ok_or_else(|| io::Error::other("/proc/self/stat makes no sense"))?;
    Ok(format!("{PREFIX}{pid}.{started}"))
}

/// Removes what dead launchers left in `parent`. Their processes died with them, so what can't be
/// removed is not theirs alone and stays.
pub(super) fn clean(proc: BorrowedFd<'_>, parent: &OwnedFd) -> io::Result<()> {
    for name in subfolders(parent)? {
        let Some((pid, start)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { continue };
        if started(proc, pid) == Some(start) {
            continue;
        }
        // Another launcher that starts now may have been faster.
        let Ok(folder) = files::subfolder(parent, &name) else { continue };
        for inner in subfolders(&folder)? {
            let _ = files::remove(&folder, &inner); // still busy: the next start tries again
        }
        let _ = files::remove(parent, &name);
    }
    Ok(())
}

fn subfolders(folder: &OwnedFd) -> io::Result<Vec<String>> {
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

/// When a live process was started, in clock ticks since boot (proc_pid_stat(5), field 22).
fn started(proc: BorrowedFd<'_>, pid: u32) -> Option<u64> {
    let stat = files::read(proc, &format!("{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}
