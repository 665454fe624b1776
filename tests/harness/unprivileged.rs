//! Starting a platform as an ordinary uid.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program;

/// Controllers that a Worker's cgroup needs.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What an ordinary uid is given to start a platform with.
#[derive(Debug)]
pub(crate) struct Unprivileged {
    /// The programs, and the script that starts them.
    folder: PathBuf,
    cgroups: Vec<PathBuf>,
}

impl Unprivileged {
    /// Copies the programs to where the uid can reach them, and makes its cgroups.
    pub(crate) fn new(folder: &Path, uid: u32, delegated: bool) -> Self {
        let folder = folder.join("programs");
        std::fs::create_dir(&folder).expect("a folder for programs");
        for name in ["cloister", "sandbox-runner"] {
            std::fs::copy(program(name), folder.join(name)).expect("a copy of a program");
        }
        let cgroups = if delegated { delegate(uid) } else { Vec::new() };
        let enter: String =
            cgroups.iter().map(|folder| format!("echo $$ >{}/cgroup.procs\n", folder.display())).collect();
        let cloister = folder.join("cloister").display().to_string();
        let become_it = format!("exec setpriv --reuid {uid} --regid {uid} --clear-groups {cloister} \"$@\"");
        let script = folder.join("start");
        std::fs::write(&script, format!("#!/bin/sh\nset -e\n{enter}{become_it}\n")).expect("a script");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("chmod");
        Self { folder, cgroups }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// `cloister`, started as the uid.
    pub(crate) fn command(&self) -> Command {
        Command::new(self.folder.join("start"))
    }
}

/// Folders that belong to the uid: one in v2 where it has the controllers, else one in the v1
/// hierarchy of each.
fn delegate(uid: u32) -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let own = |folder: PathBuf, files: &[&str]| {
        std::fs::create_dir(&folder).expect("a cgroup");
        for name in std::iter::once("").chain(files.iter().copied()) {
            chown(folder.join(name), Some(uid), Some(uid)).expect("chown of a cgroup");
        }
        folder
    };
    let name = format!("cloister-test-{uid}");
    let has = std::fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
    if CONTROLLERS.iter().all(|needed| has.split_whitespace().any(|name| name == *needed)) {
        std::fs::write(top.join("cgroup.subtree_control"), "+cpu +memory +pids").expect("controllers");
        return vec![own(top.join(name), &["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"])];
    }
    CONTROLLERS.map(|controller| own(top.join(controller).join(&name), &[])).to_vec()
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        for folder in &self.cgroups {
            remove(folder);
        }
    }
}

/// Removes a cgroup with its folders; the kernel lets go of those that just ended a little later.
fn remove(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    for _ in 0..200 {
        match std::fs::remove_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            _ => return,
        }
    }
}
