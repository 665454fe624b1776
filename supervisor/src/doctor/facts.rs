//! What the kernel says of itself and of this process, as it says it.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Uid;

/// What the kernel says of itself and of this process; `None` where it says nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    /// Effective uid of this process.
    pub(super) uid: u32,
    /// Release, as `6.1.0-28-cloud-amd64`.
    pub(super) release: String,
    /// Machine, as `x86_64`.
    pub(super) machine: String,
    /// ABI of landlock; 0 without.
    pub(super) landlock_abi: i32,
    /// `user.max_*_namespaces` by name.
    pub(super) namespaces: Vec<(&'static str, u64)>,
    /// `kernel.apparmor_restrict_unprivileged_userns`.
    pub(super) apparmor_userns: Option<u64>,
    /// `kernel.unprivileged_userns_clone` (Debian's and Arch's).
    pub(super) userns_clone: Option<u64>,
    /// `kernel.core_pattern`.
    pub(super) core_pattern: Option<String>,
    /// Hard limit of core files, bytes.
    pub(super) core_limit: Option<u64>,
    /// Hard limit of descriptors.
    pub(super) descriptors: Option<u64>,
    /// The smaller of `kernel.pid_max` and `kernel.threads-max`: processes and threads of the whole machine.
    pub(super) pids: Option<u64>,
    /// `kernel.seccomp.actions_avail`.
    pub(super) seccomp_actions: Option<String>,
    /// `kernel.yama.ptrace_scope`.
    pub(super) yama: Option<u64>,
    /// Whether threads share cores.
    pub(super) smt: Option<bool>,
    /// Names of the processor's vulnerabilities that the kernel calls open.
    pub(super) vulnerable: Option<Vec<String>>,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let name = nix::sys::utsname::uname().ok();
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let hard = |resource| getrlimit(resource).ok().map(|(_, hard)| hard);
        let kinds = ["max_user_namespaces", "max_net_namespaces", "max_mnt_namespaces", "max_pid_namespaces"];
        Self {
            uid: Uid::effective().as_raw(),
            release: name.as_ref().map(|name| text(name.release())).unwrap_or_default(),
            machine: name.as_ref().map(|name| text(name.machine())).unwrap_or_default(),
            landlock_abi: cloister_sys::landlock_abi(),
            namespaces: kinds
                .iter()
                .filter_map(|name| Some((*name, number(&format!("user/{name}"))?)))
                .collect(),
            apparmor_userns: number("kernel/apparmor_restrict_unprivileged_userns"),
            userns_clone: number("kernel/unprivileged_userns_clone"),
            core_pattern: setting("kernel/core_pattern"),
            core_limit: hard(Resource::RLIMIT_CORE),
            descriptors: hard(Resource::RLIMIT_NOFILE),
            pids: number("kernel/pid_max").min(number("kernel/threads-max")),
            seccomp_actions: setting("kernel/seccomp/actions_avail"),
            yama: number("kernel/yama/ptrace_scope"),
            smt: fs::read_to_string("/sys/devices/system/cpu/smt/active").ok().map(|text| text.trim() == "1"),
            vulnerable: vulnerable(),
        }
    }

    pub(super) const fn root(&self) -> bool {
        self.uid == 0
    }

    /// Major and minor version of the kernel.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split(|c: char| !c.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

fn setting(name: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/sys/{name}")).ok().map(|text| text.trim().to_owned())
}

fn number(name: &str) -> Option<u64> {
    setting(name)?.parse().ok()
}

/// What the kernel itself says of the processor.
fn vulnerable() -> Option<Vec<String>> {
    let folder = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").ok()?;
    let mut open: Vec<_> = folder
        .filter_map(Result::ok)
        .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with("Vulnerable")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    Some(open)
}
