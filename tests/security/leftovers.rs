//! What a launcher that was killed leaves, and who removes it.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloister_ipc::launch::{Configure, FromLauncher, ToLauncher};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use cloister_supervisor::launch::Runner;
use cloister_tests::program;

use crate::cell::{uid_base, waived};

/// A cgroup of each hierarchy that a launcher uses.
struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    fn make(name: &str) -> Self {
        let top = Path::new("/sys/fs/cgroup");
        let has = std::fs::read_to_string(top.join("cgroup.controllers")).unwrap_or_default();
        let needed = ["cpu", "memory", "pids"];
        let tops = if needed.iter().all(|needed| has.split_whitespace().any(|name| name == *needed)) {
            std::fs::write(top.join("cgroup.subtree_control"), "+cpu +memory +pids").unwrap();
            vec![top.to_owned()]
        } else {
            needed.map(|controller| top.join(controller)).to_vec()
        };
        let folders: Vec<_> = tops.iter().map(|top| top.join(name)).collect();
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
        }
        Self(folders)
    }

    /// Folders of launchers in there.
    fn launchers(&self) -> Vec<PathBuf> {
        let shared = self.0.iter().filter_map(|folder| folder.join("cloister-launchers").read_dir().ok());
        let entries = shared.flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_dir()).collect()
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for folder in &self.0 {
            for inner in ["cloister-launchers", "cloister-main", ""] {
                // What is still there was the failure of the test.
                let _left = std::fs::remove_dir(folder.join(inner));
            }
        }
    }
}

/// Starts a launcher, by a script that may first go elsewhere, and waits until it is ready.
fn start(path: &Path) -> Runner {
    let runner = Runner::spawn(path).unwrap();
    let configure = Configure { uid_base: uid_base(), uid_count: 8, waived: waived() };
    let record = codec::encode(&ToLauncher::Configure(configure), LAUNCH_BYTES).unwrap();
    descriptors::send(runner.socket.as_fd(), &record, &[]).unwrap();
    let mut buffer = vec![0; LAUNCH_BYTES];
    let (length, _) = descriptors::receive(runner.socket.as_fd(), &mut buffer).unwrap();
    let answer: FromLauncher = codec::decode(&buffer[..length], LAUNCH_BYTES).unwrap();
    assert!(matches!(answer, FromLauncher::Ready(_)), "{answer:?}");
    runner
}

#[test]
fn folders_of_a_dead_launcher_in_another_cgroup_are_removed() {
    let cgroups = Cgroups::make(&format!("cloister-test-leftovers-{}", std::process::id()));
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("elsewhere");
    // On v2 a cgroup that gave its controllers away takes no process any more, but the launcher's leaf does.
    let enter = |folder: &PathBuf| {
        format!(
            "to={}\n[ ! -d $to/cloister-main ] || to=$to/cloister-main\necho $$ >$to/cgroup.procs\n",
            folder.display()
        )
    };
    let enter: String = cgroups.0.iter().map(enter).collect();
    let runner = program("sandbox-runner");
    let text = format!("#!/bin/sh\nset -e\n{enter}exec {}\n", runner.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let mut dead = start(&script);
    let made = cgroups.launchers();
    assert_eq!(made.len(), cgroups.0.len(), "{made:?}");
    // As if it had died with a child's folder not yet removed.
    for folder in &made {
        std::fs::create_dir(folder.join("4711")).unwrap();
    }
    dead.child.kill().unwrap();
    dead.child.wait().unwrap();
    assert_eq!(cgroups.launchers(), made, "nobody was there to remove them");

    let mut next = start(&runner);
    assert_eq!(cgroups.launchers(), Vec::<PathBuf>::new());

    // A living one's stay, wherever it is.
    let mut living = start(&script);
    let kept = cgroups.launchers();
    assert_eq!(kept.len(), cgroups.0.len());
    let mut third = start(&runner);
    assert_eq!(cgroups.launchers(), kept);
    for runner in [&mut next, &mut living, &mut third] {
        let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
        // Its end of file is its order to end.
        runner.socket = ours.into();
        assert!(runner.child.wait().unwrap().success());
    }
    let end = Instant::now() + Duration::from_secs(10);
    while !cgroups.launchers().is_empty() {
        assert!(Instant::now() < end, "{:?}", cgroups.launchers());
        std::thread::sleep(Duration::from_millis(2));
    }
}
