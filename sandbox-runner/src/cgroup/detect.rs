//! Which cgroups this host has, and where the launcher is in them.

use std::io;
use std::os::fd::BorrowedFd;

use cloister_ipc::launch::{Failure, Stage, Wall};

use super::{Cgroups, files, v1::V1, v2::V2};
use crate::failure::{failure, wall};

/// Controllers without which there is no wall.
pub(super) const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn detect(proc: BorrowedFd<'_>) -> Result<Cgroups, Failure> {
    let read = |name: &str| files::read(proc, name).map_err(wall(Wall::Cgroup, format!("/proc/{name}")));
    let host = Host { mounts: read("self/mountinfo")?, own: read("self/cgroup")? };
    if let (Some(own), Some(top)) = (host.v2(), host.v2_top()) {
        // Started from a shell, its cgroup is shared, or nobody gave it controllers: then a folder at the top.
        let places = if own == top { vec![own] } else { vec![own, top] };
        let mut prepared =
            places.iter().filter(|path| has_controllers(path)).map(|path| V2::prepare(proc, path));
        if let Some(first) = prepared.next() {
            return first.or_else(|error| prepared.find_map(Result::ok).ok_or(error)).map(Cgroups::V2);
        }
    }
    let mut folders: Vec<String> = Vec::new();
    for controller in NEEDED {
        match host.v1(controller) {
            Some(path) if folders.contains(&path) => {}
            Some(path) => folders.push(path),
            None => {
                let error = io::Error::from_raw_os_error(nix::libc::ENOENT);
                let what = format!("no cgroup controller `{controller}`, neither v2 nor v1");
                return Err(failure(Stage::Wall(Wall::Cgroup), &what, &error));
            }
        }
    }
    V1::prepare(proc, &folders).map(Cgroups::V1)
}

/// Whether a folder of v2 may give its subfolders what a wall needs.
fn has_controllers(path: &str) -> bool {
    let has = std::fs::read_to_string(format!("{path}/cgroup.controllers")).unwrap_or_default();
    NEEDED.iter().all(|needed| has.split_whitespace().any(|name| name == *needed))
}

/// The kernel's own texts: proc_pid_mountinfo(5) and cgroups(7).
struct Host {
    mounts: String,
    own: String,
}

impl Host {
    /// The launcher's own v2 folder.
    fn v2(&self) -> Option<String> {
        let own = self.own.lines().find_map(|line| line.strip_prefix("0::"))?;
        self.mounted(own, |kind, _| kind == "cgroup2")
    }

    /// The top folder of v2 that is mounted.
    fn v2_top(&self) -> Option<String> {
        self.mounted("", |kind, _| kind == "cgroup2")
    }

    /// The launcher's own folder in the v1 hierarchy of `controller`.
    fn v1(&self, controller: &str) -> Option<String> {
        let own = self.own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        })?;
        self.mounted(own, |kind, options| {
            kind == "cgroup" && options.split(',').any(|option| option == controller)
        })
    }

    /// Where the folder `own` of the first mount that fits is to be found.
    fn mounted(&self, own: &str, fits: impl Fn(&str, &str) -> bool) -> Option<String> {
        self.mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            let (kind, options) = (after.next()?, after.nth(1)?);
            if !fits(kind, options) {
                return None;
            }
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            let below = own.strip_prefix(if root == "/" { "" } else { root }).unwrap_or(own);
            Some(format!("{point}{}", below.trim_end_matches('/')))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid() -> Host {
        Host {
            mounts: "30 25 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                     31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
                .into(),
            own: "4:memory:/a/b\n2:cpu,cpuacct:/\n0::/x\n".into(),
        }
    }

    #[test]
    fn own_folders_are_found_on_a_hybrid_host() {
        assert_eq!(hybrid().v1("memory").as_deref(), Some("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(hybrid().v1("cpu").as_deref(), Some("/sys/fs/cgroup/cpu"));
        assert_eq!(hybrid().v2().as_deref(), Some("/sys/fs/cgroup/unified/x"));
        assert_eq!(hybrid().v2_top().as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(hybrid().v1("pids"), None);
    }

    #[test]
    fn a_mount_of_a_part_is_understood() {
        let host = Host {
            mounts: "1 2 0:3 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw\n".into(),
            own: "0::/docker/1/inner\n".into(),
        };
        assert_eq!(host.v2().as_deref(), Some("/sys/fs/cgroup/inner"));
    }
}
