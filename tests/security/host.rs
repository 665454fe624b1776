//! What the host is like, outside of every Worker: looked at before an attack and after it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::time::{ClockId, clock_gettime};

/// Settings of the kernel that change by themselves.
const MOVING: &[&str] = &[
    "fs/aio-nr",
    "fs/dentry-state",
    "fs/file-nr",
    "fs/inode-nr",
    "fs/inode-state",
    "fs/quota/",
    "kernel/ns_last_pid",
    "kernel/perf_",
    "kernel/pty/nr",
    "kernel/random/",
    "net/netfilter/nf_conntrack_count",
    "vm/stat_refresh",
];

/// What the kernel's log says when something in it broke.
const BROKEN: &[&str] = &[
    "BUG:",
    "WARNING:",
    "Oops",
    "general protection fault",
    "refcount_t:",
    "self-detected stall",
    "soft lockup",
    "blocked for more than",
    "UBSAN",
    "KASAN",
    "list_add corruption",
    "list_del corruption",
];

/// A picture of the host, with a process beside the attack that nothing may happen to.
pub(crate) struct Host {
    before: BTreeMap<String, String>,
    clock: i64,
    bystander: Child,
}

impl Host {
    /// Before the attack.
    pub(crate) fn before() -> Self {
        let mut bystander = Command::new("cat");
        let bystander = bystander.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Self { before: picture(&bystander), clock: offset(), bystander }
    }

    /// Fails when anything is other than it was.
    pub(crate) fn unchanged(mut self) {
        let after = picture(&self.bystander);
        let ended = self.bystander.try_wait().unwrap();
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
        assert!(ended.is_none(), "a process of the host was ended: {ended:?}");
        let mut changed = Vec::new();
        for (name, was) in &self.before {
            match after.get(name) {
                Some(is) if is == was => {}
                // The log forgets what is old; only what is new counts.
                Some(is) if name == "kernel log" && is.lines().all(|line| was.contains(line)) => {}
                is => changed.push(format!("{name}: {}", difference(was, is.map_or("", String::as_str)))),
            }
        }
        let fresh = after.keys().filter(|name| !self.before.contains_key(*name));
        changed.extend(fresh.map(|name| format!("{name} is new")));
        assert!(changed.is_empty(), "the host changed: {changed:#?}");
        // A daemon may correct it a little.
        let moved = (offset() - self.clock).abs();
        assert!(moved < 5, "the clock was set by {moved} s");
    }
}

/// Seconds between the clock on the wall and the one that nobody can set.
fn offset() -> i64 {
    let now = |clock| clock_gettime(clock).unwrap().tv_sec();
    now(ClockId::CLOCK_REALTIME) - now(ClockId::CLOCK_BOOTTIME)
}

/// The lines that are only in one of both.
fn difference(was: &str, is: &str) -> String {
    let gone: Vec<_> = was.lines().filter(|line| !is.lines().any(|other| other == *line)).collect();
    let new: Vec<_> = is.lines().filter(|line| !was.lines().any(|other| other == *line)).collect();
    format!("was {gone:?}, is {new:?}")
}

fn text(path: impl AsRef<Path>) -> String {
    let mut bytes = Vec::new();
    // Some settings can only be written, some answer with an error.
    let read = std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_or_else(|error| format!("{:?}", error.kind()), |_| String::from_utf8_lossy(&bytes).into_owned())
}

fn picture(bystander: &Child) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut note = |name: &str, what: String| {
        all.insert(name.to_owned(), what);
    };
    for path in ["/proc/modules", "/proc/net/dev"] {
        let names = text(path)
            .lines()
            .map(|line| line.split([' ', ':']).find(|word| !word.is_empty()).unwrap_or("").to_owned() + "\n")
            .collect();
        note(path, names);
    }
    for path in [
        "/proc/self/mountinfo",
        "/proc/swaps",
        "/proc/filesystems",
        "/proc/net/route",
        "/proc/net/if_inet6",
        "/proc/sysvipc/shm",
        "/proc/sysvipc/sem",
        "/proc/sysvipc/msg",
    ] {
        note(path, text(path));
    }
    note("kernel log", kernel_log());
    let mut settings = String::new();
    walk(Path::new("/proc/sys"), &mut |path, _| {
        let name = path.strip_prefix("/proc/sys").unwrap().to_string_lossy().into_owned();
        if !MOVING.iter().any(|moving| name.starts_with(moving)) {
            settings += &format!("{name} = {:?}\n", text(path));
        }
    });
    note("/proc/sys", settings);
    for folder in ["/etc", "/dev", "/usr/lib/x86_64-linux-gnu", "/usr/bin"] {
        let mut files = String::new();
        walk(Path::new(folder), &mut |path, about| {
            // A pseudo terminal is whoever's has one open.
            if !path.starts_with("/dev/pts") && !path.starts_with("/dev/shm") {
                let times = if about.file_type().is_file() { about.ctime() } else { 0 };
                let (mode, owner, device) = (about.mode(), about.uid(), about.rdev());
                files +=
                    &format!("{} {mode:o} {owner} {device:x} {} {times}\n", path.display(), about.size());
            }
        });
        note(folder, files);
    }
    let status = text(format!("/proc/{}/status", bystander.id()));
    let kept = |line: &&str| {
        !line.contains("ctxt")
            && !line.starts_with("SigQ")
            && !line.starts_with("State")
            && !line.starts_with("Vm")
            && !line.starts_with("Rss")
    };
    note("a process beside", status.lines().filter(kept).collect::<Vec<_>>().join("\n"));
    note("its priority for the OOM killer", text(format!("/proc/{}/oom_score_adj", bystander.id())));
    all
}

/// Every file, link and device below `folder`.
fn walk(folder: &Path, seen: &mut dyn FnMut(&Path, &std::fs::Metadata)) {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    for path in names {
        let Ok(about) = std::fs::symlink_metadata(&path) else { continue };
        let kind = about.file_type();
        if kind.is_dir() {
            walk(&path, seen);
        } else if !kind.is_socket() {
            seen(&path, &about);
        }
    }
}

/// What the kernel said of itself that it should never have to say. (`kernel/tainted` is among the
/// settings.)
fn kernel_log() -> String {
    let said = Command::new("dmesg").output();
    let said = said.map_or_else(|_| Vec::new(), |output| output.stdout);
    let said = String::from_utf8_lossy(&said).into_owned();
    said.lines()
        .filter(|line| BROKEN.iter().any(|word| line.contains(word)))
        // A program of some other test that died of its own fault.
        .filter(|line| !line.contains(" traps: "))
        .fold(String::new(), |all, line| all + line + "\n")
}
