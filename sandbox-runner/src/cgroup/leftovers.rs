//! Names of launchers' folders, and those of launchers that died.
//!
//! A launcher makes its folder below the cgroup it was started in. The next may be started in
//! another (a service where the last was a shell, a session that has ended), so it looks for folders
//! of dead launchers in the whole hierarchy.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::{detect, files};

const PREFIX: &str = "cloister.";

/// Folder of all launchers below the service's own; it stays. A launcher that gave up its capabilities can
/// remove its folder only from one that its user may write, which a hierarchy's root (mode 0555) is not.
pub(super) const SHARED: &str = "cloister-launchers";

/// Deepest that folders of launchers are looked for, and most folders that are looked at.
const DEPTH: usize = 12;
const FOLDERS: usize = 20_000;

/// How long the end of a dead launcher's children is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(5);

/// Whose folder it is. No other process of this pid namespace ever has the same pid and start time;
/// one of another namespace can't be told dead from alive, so its folder is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    pid: u32,
    /// Clock ticks since boot.
    started: u64,
    /// Inode of its pid namespace.
    namespace: u64,
}

impl Owner {
    fn own(proc: BorrowedFd<'_>) -> io::Result<Self> {
        let pid = std::process::id();
        let started = started(proc, pid)?;
        let namespace = rustix::fs::statat(proc, "self/ns/pid", rustix::fs::AtFlags::empty())?.st_ino;
        Ok(Self { pid, started, namespace })
    }

    fn name(self) -> String {
        format!("{PREFIX}{}.{}.{}", self.pid, self.started, self.namespace)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.split('.');
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let namespace = parts.next()?.parse().ok()?;
        parts.next().is_none().then_some(Self { pid, started, namespace })
    }

    /// Whether it is of `own`'s pid namespace and no process any more. Who can't be looked at lives.
    fn is_dead(self, own: Self, proc: BorrowedFd<'_>) -> bool {
        self.namespace == own.namespace
            && match started(proc, self.pid) {
                Ok(started) => started != self.started,
                Err(error) => matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ESRCH)),
            }
    }
}

/// The name of this launcher's folder.
pub(super) fn own_name(proc: BorrowedFd<'_>) -> io::Result<String> {
    Owner::own(proc).map(Owner::name)
}

/// Removes what dead launchers left in `parent`.
pub(super) fn clean(proc: BorrowedFd<'_>, parent: &OwnedFd) -> io::Result<()> {
    clean_until(proc, parent, Instant::now() + PATIENCE)
}

fn clean_until(proc: BorrowedFd<'_>, parent: &OwnedFd, until: Instant) -> io::Result<()> {
    let own = Owner::own(proc)?;
    for name in files::subfolders(parent)? {
        let dead = Owner::parse(&name).is_some_and(|owner| owner.is_dead(own, proc));
        // Another launcher that starts now may have been faster.
        if dead && let Ok(folder) = files::subfolder(parent, &name) {
            empty(&folder, until);
            let _ = removed(parent, &name, until); // what stays is not theirs alone
        }
    }
    Ok(())
}

/// Removes what dead launchers left anywhere in the hierarchies. What may not be looked at or
/// removed is another user's, and left to him.
pub(super) fn clean_everywhere(proc: BorrowedFd<'_>) -> io::Result<()> {
    let mut left = FOLDERS;
    // One patience for all there is, which others may have made.
    let until = Instant::now() + PATIENCE;
    for top in tops(&files::read(proc, "self/mountinfo")?) {
        if let Ok(top) = files::folder(&top) {
            search(proc, &top, DEPTH, &mut left, until)?;
        }
    }
    Ok(())
}

fn search(
    proc: BorrowedFd<'_>,
    folder: &OwnedFd,
    depth: usize,
    left: &mut usize,
    until: Instant,
) -> io::Result<()> {
    for name in files::subfolders(folder).unwrap_or_default() {
        if *left == 0 {
            return Ok(());
        }
        *left -= 1;
        // It may have been removed meanwhile.
        let Ok(inner) = files::subfolder(folder, &name) else { continue };
        if name == SHARED {
            clean_until(proc, &inner, until)?;
        } else if depth > 1 {
            search(proc, &inner, depth - 1, left, until)?;
        }
    }
    Ok(())
}

/// Where the hierarchies that launchers use are mounted (proc_pid_mountinfo(5)).
fn tops(mounts: &str) -> Vec<String> {
    let top = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let used = kind == "cgroup2"
            || kind == "cgroup" && options.split(',').any(|option| detect::NEEDED.contains(&option));
        used.then(|| before.split(' ').nth(4).map(str::to_owned)).flatten()
    };
    mounts.lines().filter_map(top).collect()
}

/// Removes the folders of the children, which died with their launcher or are about to. What another
/// launcher removes meanwhile can't be listed, and what stays keeps the launcher's folder.
fn empty(folder: &OwnedFd, until: Instant) {
    for name in files::subfolders(folder).unwrap_or_default() {
        let _ = removed(folder, &name, until);
    }
}

fn removed(parent: &OwnedFd, name: &str, until: Instant) -> bool {
    loop {
        match files::remove(parent, name) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) && Instant::now() < until => {
                std::thread::sleep(PAUSE);
            }
            other => return other.is_ok(),
        }
    }
}

/// When a live process was started, in clock ticks since boot (proc_pid_stat(5), field 22).
fn started(proc: BorrowedFd<'_>, pid: u32) -> io::Result<u64> {
    let stat = files::read(proc, &format!("{pid}/stat"))?;
    let field = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok());
    field.ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat makes no sense: {stat}")))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn proc() -> OwnedFd {
        files::folder("/proc").unwrap()
    }

    #[test]
    fn a_name_tells_whether_its_launcher_lives() {
        let proc = proc();
        let own = Owner::own(proc.as_fd()).unwrap();
        assert_eq!(Owner::parse(&own.name()), Some(own));
        assert!(!own.is_dead(own, proc.as_fd()));
        // The pid was given to another process since.
        let before = Owner { started: own.started - 1, ..own };
        assert!(before.is_dead(own, proc.as_fd()));
        // Of a container: perhaps it lives.
        let elsewhere = Owner { namespace: own.namespace + 1, ..before };
        assert!(!elsewhere.is_dead(own, proc.as_fd()));
        for other in ["cloister.1.2", "cloister.1.2.3.4", "cloister.a.2.3", "7", "cloister-launchers"] {
            assert_eq!(Owner::parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_hierarchies_that_launchers_use_are_searched() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                      31 25 0:27 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
                      32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      33 25 0:29 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(tops(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"]);
    }
}
