//! Looks at the machine for what a platform may have left behind.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes whose real uid is in `[base, base + count)`: pid and `argv[0]`.
pub(crate) fn processes(base: u32, count: u32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end between the listing and the reading.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let uid =
            field("Uid:").and_then(|line| line.split_whitespace().next()).and_then(|uid| uid.parse().ok());
        if uid.is_some_and(|uid: u32| (base..base.saturating_add(count)).contains(&uid)) {
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, line.split('\0').next().unwrap_or_default().to_owned()));
        }
    }
    found
}

/// Direct and indirect children of a process.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name, in parentheses, may hold anything; the parent is the second field behind it.
        let parent =
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|p| p.parse().ok());
        parents.push((pid, parent.unwrap_or(0)));
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    found
}

/// cgroup folders of a launcher, in any hierarchy: `cloister.PID.START`.
pub(crate) fn cgroups(launcher: i32) -> Vec<PathBuf> {
    fn walk(folder: &Path, depth: u8, prefix: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.push(entry.path());
            } else if depth > 0 {
                walk(&entry.path(), depth - 1, prefix, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 5, &format!("cloister.{launcher}."), &mut found);
    found
}

/// Looks again and again until `look` finds nothing; what it found last when `patience` is over.
pub(crate) fn until_none<T>(patience: Duration, mut look: impl FnMut() -> Vec<T>) -> Vec<T> {
    let end = Instant::now() + patience;
    loop {
        let found = look();
        if found.is_empty() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
