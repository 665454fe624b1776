//! The kernel and its settings: what they mean for a start like this one.

use super::facts::Facts;
use super::{Check, State};

const GROUP: &str = "machine";

/// Oldest kernel that raises every wall of a Worker.
const EVERY_WALL: (u32, u32) = (6, 12);
/// Fewest namespaces of a kind.
const NAMESPACES: u64 = 1024;
/// Fewest processes and threads of the machine, and the ceiling of a Worker's (`policies/sandbox/default.toml`).
const PIDS: u64 = 1 << 16;
const WORKER_PIDS: u64 = 512;

/// Fewest descriptors.
const DESCRIPTORS: u64 = 65_536;
/// What filters answer with.
const ACTIONS: [&str; 3] = ["kill_process", "errno", "allow"];

/// Judges what was found.
pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![kernel(facts), started(facts)];
    checks.extend(namespaces(facts));
    checks.extend([seccomp(facts), crashes(facts), tracing(facts), descriptors(facts), pids(facts)]);
    checks.extend(side_channels(facts));
    checks
}

fn check(name: impl Into<String>, state: State, detail: impl Into<String>) -> Check {
    Check::new(GROUP, name, state, detail)
}

fn kernel(facts: &Facts) -> Check {
    let detail = format!("{} {}, landlock ABI {}", facts.release, facts.machine, facts.landlock_abi);
    match facts.version() {
        None => check("kernel", State::Unknown, detail),
        Some(version) if version < EVERY_WALL => {
            let detail = format!("{detail}: older than 6.12, so some walls are not to be had (see walls)");
            check("kernel", State::Warning, detail)
                .fix("boot Linux 6.12 or newer, or waive by name what `walls` calls missing")
        }
        Some(_) => check("kernel", State::Ok, detail),
    }
}

fn started(facts: &Facts) -> Check {
    if facts.root() {
        return check(
            "started as",
            State::Ok,
            "root: a uid of its own for every Worker, cgroups, every wall",
        );
    }
    let detail = format!(
        "uid {}, not root: all Workers share this uid, cgroups only where they are delegated, user namespaces only \
         where they are allowed",
        facts.uid
    );
    check("started as", State::Warning, detail)
        .fix("run it as root, or waive by name what `walls` calls missing")
}

/// Limits and switches of namespaces; those for unprivileged ones matter only without root.
fn namespaces(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    for (name, most) in &facts.namespaces {
        if *most < NAMESPACES {
            let state = if *most == 0 { State::Missing } else { State::Warning };
            checks.push(
                check(format!("user.{name}"), state, format!("{most}: each Worker needs one"))
                    .fix(format!("sysctl -w user.{name}=100000")),
            );
        }
    }
    let state = if facts.root() { State::Ok } else { State::Missing };
    if facts.apparmor_userns == Some(1) {
        let detail = "kernel.apparmor_restrict_unprivileged_userns = 1: a user namespace made without root is powerless";
        let found = check("AppArmor", state, detail);
        checks.push(if facts.root() {
            found
        } else {
            found.fix(
                "start cloister as root, or give sandbox-runner an AppArmor profile with `userns,`, or set \
                 kernel.apparmor_restrict_unprivileged_userns=0",
            )
        });
    }
    if facts.userns_clone == Some(0) {
        let detail = "kernel.unprivileged_userns_clone = 0: no user namespaces without root";
        let found = check("user namespaces", state, detail);
        checks.push(if facts.root() {
            found
        } else {
            found.fix("start cloister as root, or sysctl -w kernel.unprivileged_userns_clone=1")
        });
    }
    checks
}

fn seccomp(facts: &Facts) -> Check {
    let Some(actions) = &facts.seccomp_actions else {
        return check("seccomp actions", State::Unknown, "the kernel does not tell which it has");
    };
    let has = |wanted: &&str| actions.split_whitespace().any(|action| action == *wanted);
    let lacking: Vec<_> = ACTIONS.into_iter().filter(|action| !has(action)).collect();
    match lacking.as_slice() {
        [] => check("seccomp actions", State::Ok, ACTIONS.join(", ")),
        lacking => {
            let detail = format!("the kernel lacks {}", lacking.join(", "));
            check("seccomp actions", State::Missing, detail)
                .fix("boot Linux 4.14 or newer with CONFIG_SECCOMP_FILTER")
        }
    }
}

/// A crash handler runs as root outside of every namespace, with what a Worker made of its memory as
/// input. A core limit of 1 keeps the kernel from starting it; the limit can only be had from a hard
/// limit that is not 0.
fn crashes(facts: &Facts) -> Check {
    let name = "crash handler";
    let Some(pattern) = &facts.core_pattern else {
        return check(name, State::Unknown, "kernel.core_pattern can't be read");
    };
    if !pattern.starts_with(['|', '@']) {
        return check(name, State::Ok, "none: kernel.core_pattern is a file's name, and Workers write none");
    }
    let handler = pattern.split(' ').next().unwrap_or_default();
    // Root raises it.
    if facts.root() || facts.core_limit.is_none_or(|hard| hard > 0) {
        let detail =
            format!("{handler} is not run for Workers (core limit 1) nor for the supervisor (not dumpable)");
        return check(name, State::Ok, detail);
    }
    let detail = format!(
        "{handler} runs as root for a Worker that crashes: the hard core limit is 0, which does not keep it from \
         that, and can't be raised to 1"
    );
    check(name, State::Warning, detail).fix("start cloister with LimitCORE=1 or more, or as root")
}

fn tracing(facts: &Facts) -> Check {
    let name = "Yama";
    let no_matter = "Workers can't trace at all (seccomp), and the supervisor is not dumpable";
    match facts.yama {
        None => check(name, State::Ok, format!("not in this kernel; {no_matter}")),
        Some(0) => check(name, State::Ok, format!("kernel.yama.ptrace_scope = 0; {no_matter}")),
        Some(scope) => check(name, State::Ok, format!("kernel.yama.ptrace_scope = {scope}")),
    }
}

fn descriptors(facts: &Facts) -> Check {
    match facts.descriptors {
        None => check("descriptors", State::Unknown, "the limit can't be read"),
        Some(hard) if hard < DESCRIPTORS => check(
            "descriptors",
            State::Warning,
            format!("at most {hard}; a live Worker takes five, and one for each connection"),
        )
        .fix("raise LimitNOFILE of the service"),
        Some(hard) => check("descriptors", State::Ok, format!("at most {hard}")),
    }
}

/// Each Worker's cgroup bounds its own; together they must not fill the machine's.
fn pids(facts: &Facts) -> Check {
    match facts.pids {
        None => check("pids", State::Unknown, "kernel.pid_max can't be read"),
        Some(most) if most < PIDS => {
            let detail = format!(
                "the machine has at most {most}, which {} Workers that take all they may (resources.pids) fill",
                (most / WORKER_PIDS).max(1)
            );
            check("pids", State::Warning, detail)
                .fix("sysctl kernel.pid_max=4194304 (and kernel.threads-max), or a lower ceiling of pids in the sandbox policy")
        }
        Some(most) => check("pids", State::Ok, format!("at most {most}")),
    }
}

/// What native code may learn from the processor.
fn side_channels(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    if facts.smt == Some(true) {
        let detail = "on: where core scheduling is not to be had (see walls), two tenants may share a core";
        checks.push(
            check("hyper-threading", State::Warning, detail)
                .fix("boot with nosmt, or a kernel with CONFIG_SCHED_CORE"),
        );
    }
    if let Some(open) = &facts.vulnerable {
        checks.push(match open.is_empty() {
            true => check("processor", State::Ok, "no vulnerability that the kernel knows is open"),
            false => check(
                "processor",
                State::Warning,
                format!("open according to the kernel: {}", open.join(", ")),
            )
            .fix("update microcode and kernel; keep distrusting tenants on machines of their own"),
        });
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which nothing is to be said, for root.
    fn good() -> Facts {
        Facts {
            uid: 0,
            release: "6.12.9-cloud-amd64".into(),
            machine: "x86_64".into(),
            landlock_abi: 6,
            namespaces: vec![("max_user_namespaces", 96_000)],
            apparmor_userns: Some(0),
            userns_clone: Some(1),
            core_pattern: Some("core".into()),
            core_limit: Some(u64::MAX),
            descriptors: Some(1 << 20),
            pids: Some(1 << 22),
            seccomp_actions: Some("kill_process kill_thread trap errno user_notif trace log allow".into()),
            yama: Some(1),
            smt: Some(false),
            vulnerable: Some(Vec::new()),
        }
    }

    fn one(facts: &Facts, name: &str) -> Check {
        judge(facts).into_iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check {name}"))
    }

    #[test]
    fn a_good_machine_as_root_has_nothing_to_mend() {
        for check in judge(&good()) {
            assert_eq!((check.state, check.fix), (State::Ok, None), "{}: {}", check.name, check.detail);
        }
    }

    #[test]
    fn root_and_ordinary_are_told_apart_in_words() {
        let root = one(&good(), "started as");
        assert!(root.detail.starts_with("root: a uid of its own"), "{}", root.detail);
        let user = one(&Facts { uid: 1000, ..good() }, "started as");
        assert_eq!(user.state, State::Warning);
        assert!(user.detail.starts_with("uid 1000, not root: all Workers share this uid"), "{}", user.detail);
        assert!(user.fix.unwrap().contains("as root"));
    }

    #[test]
    fn switches_of_user_namespaces_matter_only_without_root() {
        let closed = Facts { apparmor_userns: Some(1), userns_clone: Some(0), ..good() };
        for (name, words) in [
            ("AppArmor", "kernel.apparmor_restrict_unprivileged_userns=0"),
            ("user namespaces", "kernel.unprivileged_userns_clone=1"),
        ] {
            let as_root = one(&closed, name);
            assert_eq!((as_root.state, as_root.fix), (State::Ok, None), "{name}");
            let as_user = one(&Facts { uid: 1000, ..closed.clone() }, name);
            assert_eq!(as_user.state, State::Missing, "{name}");
            assert!(as_user.fix.unwrap().contains(words), "{name}");
        }
        let none =
            Facts { namespaces: vec![("max_user_namespaces", 0), ("max_net_namespaces", 9)], ..good() };
        let user = one(&none, "user.max_user_namespaces");
        assert_eq!(
            (user.state, user.fix.unwrap().as_str()),
            (State::Missing, "sysctl -w user.max_user_namespaces=100000")
        );
        assert_eq!(one(&none, "user.max_net_namespaces").state, State::Warning);
    }

    #[test]
    fn a_crash_handler_is_told_where_it_can_not_be_kept_away() {
        let piped = Facts { core_pattern: Some("|/usr/share/apport/apport -p%p".into()), ..good() };
        let kept_away = one(&piped, "crash handler");
        assert_eq!(kept_away.state, State::Ok);
        assert!(kept_away.detail.contains("apport is not run for Workers"), "{}", kept_away.detail);
        let zero = Facts { core_limit: Some(0), ..piped };
        assert_eq!(one(&zero, "crash handler").state, State::Ok, "root raises the limit");
        let risky = one(&Facts { uid: 1000, ..zero }, "crash handler");
        assert_eq!(risky.state, State::Warning);
        assert!(risky.fix.unwrap().contains("LimitCORE"));
    }

    #[test]
    fn old_kernels_and_what_they_lack() {
        let old = one(&Facts { release: "6.1.0-28-amd64".into(), landlock_abi: 2, ..good() }, "kernel");
        assert_eq!(old.state, State::Warning);
        assert!(old.detail.contains("ABI 2") && old.fix.unwrap().contains("6.12"), "{}", old.detail);
        assert_eq!(one(&Facts { release: "odd".into(), ..good() }, "kernel").state, State::Unknown);
        let poor = Facts { seccomp_actions: Some("kill_thread errno allow".into()), ..good() };
        let actions = one(&poor, "seccomp actions");
        assert_eq!(
            (actions.state, actions.detail.as_str()),
            (State::Missing, "the kernel lacks kill_process")
        );
    }

    #[test]
    fn few_pids_are_told() {
        let few = one(&Facts { pids: Some(32_768), ..good() }, "pids");
        assert_eq!(few.state, State::Warning);
        assert!(few.detail.contains("which 64 Workers"), "{}", few.detail);
        assert!(few.fix.unwrap().contains("kernel.pid_max"));
    }

    #[test]
    fn side_channels_are_told() {
        let shared = Facts { smt: Some(true), vulnerable: Some(vec!["mds".into(), "tsa".into()]), ..good() };
        assert!(one(&shared, "hyper-threading").fix.unwrap().contains("nosmt"));
        assert_eq!(one(&shared, "processor").detail, "open according to the kernel: mds, tsa");
    }
}
