//! The kernel and its settings.

use std::fs;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Uid;

use super::{Check, State};

const GROUP: &str = "machine";

/// Checks what is the machine's.
pub(super) fn check(checks: &mut Vec<Check>) {
    checks.push(match nix::sys::utsname::uname() {
        Ok(name) => {
            let text = format!("{} {}", name.release().to_string_lossy(), name.machine().to_string_lossy());
            Check::new(GROUP, "kernel", State::Ok, text)
        }
        Err(error) => Check::new(GROUP, "kernel", State::Unknown, error.to_string()),
    });
    checks.push(match Uid::effective().is_root() {
        true => Check::new(GROUP, "root", State::Ok, "started as root"),
        false => Check::new(GROUP, "root", State::Missing, "not started as root: Workers would share a uid")
            .fix("run it as root"),
    });
    for name in ["max_user_namespaces", "max_net_namespaces", "max_mnt_namespaces", "max_pid_namespaces"] {
        if let Some(most) = number(&format!("/proc/sys/user/{name}"))
            && most < 1024
        {
            let state = if most == 0 { State::Missing } else { State::Warning };
            checks.push(
                Check::new(GROUP, format!("user.{name}"), state, format!("{most}: each Worker needs one"))
                    .fix(format!("sysctl -w user.{name}=100000")),
            );
        }
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        let detail = "AppArmor restricts user namespaces of unprivileged processes";
        let state = if Uid::effective().is_root() { State::Ok } else { State::Missing };
        checks.push(Check::new(GROUP, "AppArmor", state, detail).fix(
            "start cloister as root, or give sandbox-runner a profile with `userns`, or set kernel.apparmor_restrict_unprivileged_userns=0",
        ));
    }
    if fs::read_to_string("/sys/devices/system/cpu/smt/active").is_ok_and(|text| text.trim() == "1") {
        checks.push(Check::new(
            GROUP,
            "hyper-threading",
            State::Warning,
            "on: without core scheduling (see walls) tenants share cores",
        ));
    }
    descriptors(checks);
    check_vulnerabilities(checks);
}

fn number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn descriptors(checks: &mut Vec<Check>) {
    const WANTED: u64 = 65_536;
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if hard < WANTED {
        checks.push(
            Check::new(
                GROUP,
                "descriptors",
                State::Warning,
                format!("at most {hard}; a live Worker takes about ten"),
            )
            .fix("raise LimitNOFILE of the service"),
        );
    } else {
        checks.push(Check::new(GROUP, "descriptors", State::Ok, format!("at most {hard}")));
    }
}

/// What the kernel itself says of the processor.
fn check_vulnerabilities(checks: &mut Vec<Check>) {
    let Ok(folder) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") else { return };
    let mut open: Vec<_> = folder
        .filter_map(Result::ok)
        .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with("Vulnerable")))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    checks.push(match open.is_empty() {
        true => Check::new(GROUP, "processor", State::Ok, "no vulnerability that the kernel knows is open"),
        false => Check::new(
            GROUP,
            "processor",
            State::Warning,
            format!("open according to the kernel: {}", open.join(", ")),
        )
        .fix("update microcode and kernel; keep distrusting tenants on machines of their own"),
    });
}
