//! Every rule of the system call policy that looks at arguments, called with wrong ones from inside.
//! The calls are made of the policy itself, so that a new rule is tried without anybody thinking of
//! it, and what each came to is a committed table. `CLOISTER_BLESS=1` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use cloister_policies::seccomp::{self, Action, Decision, Profile, Test, TestKind, syscall_name};
use cloister_supervisor::launch::ExitStatus;
use cloister_supervisor::registry::{Allow, Contract};
use nix::errno::Errno;

use crate::cell::{Cell, SIGSYS};

type Args = [u64; 6];

/// What no test looks at: a descriptor and a pointer that are none, so that a call that got through
/// answers in other words than the filter.
const NONE: u64 = u64::MAX;

/// One way to be wrong: the argument that is changed, and all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Wrong {
    number: u32,
    argument: u8,
    args: Args,
}

/// Arguments that pass all of `tests`.
fn right(tests: &[Test]) -> Args {
    let mut args = [NONE; 6];
    for test in tests {
        args[usize::from(test.arg)] = 0;
    }
    for test in tests {
        let arg = &mut args[usize::from(test.arg)];
        match &test.kind {
            TestKind::OneOf(_, values) => *arg |= u64::from(values[0]),
            TestKind::All(bits) => *arg |= u64::from(*bits),
            TestKind::None(_) => {}
        }
    }
    assert!(tests.iter().all(|test| test.holds(&args)), "{tests:?} contradict each other");
    args
}

/// Values of an argument near to what `test` wants, and that, of which some fail it. Those of a flag each alone.
fn near(test: &Test, passes: u64) -> BTreeSet<u64> {
    match &test.kind {
        TestKind::OneOf(mask, values) => {
            let bits = (0..32).map(|bit| values[0] ^ (1 << bit));
            let beside =
                values.iter().flat_map(|value| [value.wrapping_sub(1), *value, value.wrapping_add(1)]);
            bits.chain(beside).chain([0, u32::MAX]).map(|value| u64::from(value & mask)).collect()
        }
        TestKind::All(mask) | TestKind::None(mask) => {
            let bits = (0..32).map(|bit| 1 << bit).filter(|bit| mask & bit != 0);
            // What passes is itself wrong where the case refuses.
            bits.map(|bit: u32| passes ^ u64::from(bit)).chain([passes ^ u64::from(*mask), passes]).collect()
        }
    }
}

/// Arguments that case `at` decides about, and no case before it.
fn reaching(cases: &[(Vec<Test>, Action)], at: usize) -> Args {
    let (tests, _) = &cases[at];
    let reaches = |args: &Args| {
        let first = cases.iter().position(|(tests, _)| tests.iter().all(|test| test.holds(args)));
        first == Some(at)
    };
    let base = right(tests);
    let changed = cases[..at].iter().flat_map(|(earlier, _)| earlier).flat_map(|test| {
        near(test, base[usize::from(test.arg)]).into_iter().map(|value| {
            let mut args = base;
            args[usize::from(test.arg)] = value;
            args
        })
    });
    [base].into_iter().chain(changed).find(reaches).unwrap_or_else(|| panic!("nothing reaches {tests:?}"))
}

/// Every wrong call of a rule. Fails where a condition can't be failed: then it is none.
fn wrong(number: u32, decision: &Decision) -> BTreeSet<Wrong> {
    let Decision::ByArguments { cases, .. } = decision else { return BTreeSet::new() };
    let mut all = BTreeSet::new();
    for (at, (tests, action)) in cases.iter().enumerate() {
        let base = reaching(cases, at);
        for test in tests {
            let found: Vec<_> = near(test, base[usize::from(test.arg)])
                .into_iter()
                .map(|value| {
                    let mut args = base;
                    args[usize::from(test.arg)] = value;
                    Wrong { number, argument: test.arg, args }
                })
                .filter(|wrong| decision.of(&wrong.args) != Action::Allow)
                .collect();
            let name = syscall_name(number).unwrap();
            assert!(!found.is_empty(), "{name}: no wrong value for {test:?} of a case that says {action:?}");
            all.extend(found);
        }
    }
    all
}

/// Rubbish above the 32 bits that the kernel looks at.
fn with_high_bits(decision: &Decision, args: &Args) -> Args {
    let Decision::ByArguments { cases, .. } = decision else { return *args };
    let mut args = *args;
    for test in cases.iter().flat_map(|(tests, _)| tests) {
        args[usize::from(test.arg)] |= 0xdead_beef_0000_0000;
    }
    args
}

/// What the filter must say, in the words of the program that calls.
fn refusal(action: Action) -> String {
    match action {
        Action::NOTHING => "ok".into(),
        Action::Errno(number) => format!("{:?}", Errno::from_raw(number.into())),
        Action::Kill => "killed".into(),
        Action::Allow => "allowed".into(),
    }
}

/// Makes the calls from inside.
async fn results(cell: &Cell, calls: &[(u32, Args)]) -> Vec<String> {
    let mut results: Vec<String> = Vec::new();
    while results.len() < calls.len() {
        let mut cell = cell.clone();
        let before = results.len();
        // As many as fit the message that starts it.
        for (number, args) in calls[before..].iter().take(600) {
            let args: Vec<_> = args.iter().map(|arg| format!("{arg:x}")).collect();
            cell = cell.arg(format!("{number:x},{}", args.join(",")));
        }
        let ended = cell.run().await;
        for line in ended.lines.iter().filter(|line| *line != "end") {
            let (_, result) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let killed = result.is_empty() && ended.exit.status == ExitStatus::Signal(SIGSYS);
            results.push(if killed { "killed".into() } else { result.to_owned() });
        }
        assert!(results.len() > before, "no progress: {ended:?}");
    }
    results
}

async fn every_rule(name: &str, cell: Cell, profile: Profile) {
    let decisions: BTreeMap<_, _> = seccomp::decisions(&profile).unwrap().into_iter().collect();
    let wrong: Vec<_> = decisions.iter().flat_map(|(number, decision)| wrong(*number, decision)).collect();
    let plain = wrong.iter().map(|wrong| (wrong.number, wrong.args));
    let high = wrong.iter().map(|wrong| {
        let decision = &decisions[&wrong.number];
        (wrong.number, with_high_bits(decision, &wrong.args))
    });
    let calls: Vec<_> = plain.chain(high).collect();
    let results = results(&cell, &calls).await;
    let mut through = Vec::new();
    let mut table: BTreeMap<(u32, u8, &str), Vec<u64>> = BTreeMap::new();
    for (at, ((number, args), result)) in calls.iter().zip(&results).enumerate() {
        let must = refusal(decisions[number].of(args));
        if *result != must {
            through.push(format!("{} {args:x?} = {result}, not {must}", syscall_name(*number).unwrap()));
        }
        if let Some(wrong) = wrong.get(at) {
            let values = table.entry((*number, wrong.argument, result)).or_default();
            values.push(args[usize::from(wrong.argument)] & u64::from(u32::MAX));
        }
    }
    assert!(through.is_empty(), "{through:#?}");
    let mut text =
        String::from("# Wrong arguments from inside: the call, which argument, what came of these values.\n");
    for ((number, argument, result), mut values) in table {
        values.sort_unstable();
        values.dedup();
        let values: Vec<_> = values.iter().map(|value| format!("{value:x}")).collect();
        let name = syscall_name(number).unwrap();
        writeln!(text, "{name} {argument} = {result}: {}", values.join(" ")).unwrap();
    }
    right_ones_pass(&cell, &decisions).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("security/snapshots").join(name);
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<_> = committed.lines().zip(text.lines()).filter(|(was, is)| was != is).collect();
    assert!(committed == text, "{name} is not what is committed; was, is: {changed:#?}");
}

/// Right ways to make a call: of each case that allows it, and of each value that it names.
fn right_ones(name: &str, decision: &Decision) -> BTreeSet<Args> {
    let Decision::ByArguments { cases, .. } = decision else { return BTreeSet::new() };
    let mut all = BTreeSet::new();
    for (at, (tests, _)) in cases.iter().enumerate().filter(|(_, (_, action))| *action == Action::Allow) {
        let mut base = reaching(cases, at);
        if name == "membarrier" {
            // It says of its other arguments what the filter says.
            base[1..3].fill(0);
        }
        all.insert(base);
        // Some of these refuse a wrong argument in the filter's words: only the first is told apart.
        if ["arch_prctl", "membarrier", "prctl"].contains(&name) {
            continue;
        }
        for test in tests {
            let TestKind::OneOf(_, values) = &test.kind else { continue };
            for value in values {
                let mut args = base;
                args[usize::from(test.arg)] = u64::from(*value);
                all.insert(args);
            }
        }
    }
    all.retain(|args| decision.of(args) == Action::Allow);
    all
}

/// The twin: with right arguments each of these calls reaches the kernel, which answers in other words
/// than the filter. (But `clone`, whose child would live on no stack: `processes_twin.c` makes threads.)
async fn right_ones_pass(cell: &Cell, decisions: &BTreeMap<u32, Decision>) {
    let mut calls = Vec::new();
    for (number, decision) in decisions {
        let name = syscall_name(*number).unwrap();
        if name != "clone" {
            calls.extend(right_ones(name, decision).into_iter().map(|args| (*number, args)));
        }
    }
    let results = results(cell, &calls).await;
    let mut stopped = Vec::new();
    for ((number, args), result) in calls.iter().zip(&results) {
        let Decision::ByArguments { otherwise, .. } = &decisions[number] else { unreachable!() };
        if result.is_empty() || result == "killed" || *result == refusal(*otherwise) {
            stopped.push(format!("{} {args:x?} = {result}", syscall_name(*number).unwrap()));
        }
    }
    println!("{} right calls", calls.len());
    assert!(stopped.is_empty(), "right, and refused: {stopped:#?}");
}

const HTTP: Profile = Profile { contract: seccomp::Contract::Http, processes: false, jit: false };
const IPC: Profile = Profile { contract: seccomp::Contract::Ipc, ..HTTP };

#[tokio::test]
async fn every_rule_http() {
    every_rule("arguments-http.txt", Cell::new("arguments"), HTTP).await;
}

#[tokio::test]
async fn every_rule_ipc() {
    every_rule("arguments-ipc.txt", Cell::new("arguments").contract(Contract::Ipc), IPC).await;
}

#[tokio::test]
async fn every_rule_with_waivers() {
    let cell = Cell::new("arguments").allow(Allow::Processes).allow(Allow::Jit);
    let profile = Profile { processes: true, jit: true, ..HTTP };
    every_rule("arguments-http-processes-jit.txt", cell, profile).await;
}

/// What each rule is there against, by its own name: call, what it is, arguments from the first.
/// A rule without one here fails the test, so that whoever writes one says what it stops.
const DANGEROUS: &[(&str, &str, &[u64])] = &[
    ("arch_prctl", "ARCH_SET_CPUID", &[0x1012, 0]),
    ("arch_prctl", "ARCH_MAP_VDSO_64", &[0x2003, 0]),
    ("arch_prctl", "ARCH_SHSTK_DISABLE", &[0x5002, 1]),
    ("arch_prctl", "ARCH_REQ_XCOMP_GUEST_PERM", &[0x1025, 18]),
    ("clone", "a thread with CLONE_NEWUSER", &[0x103d_0f00]),
    ("clone", "a thread with CLONE_NEWNET", &[0x403d_0f00]),
    ("clone", "CLONE_NEWUSER", &[0x1000_0011]),
    ("clone", "CLONE_PARENT: a sibling, beside the pid namespace's init", &[0x8011]),
    ("clone", "CLONE_PTRACE", &[0x2011]),
    ("clone", "CLONE_PIDFD", &[0x1011]),
    ("clone", "CLONE_NEWUSER below high bits", &[0xffff_ffff_1000_0011]),
    ("close_range", "CLOSE_RANGE_UNSHARE: a table of descriptors by itself", &[3000, 4000, 2]),
    ("close_range", "the same with CLOSE_RANGE_CLOEXEC", &[3000, 4000, 6]),
    ("execveat", "AT_FDCWD", &[0xffff_ffff_ffff_ff9c, 0, 0, 0, 0]),
    ("execveat", "another descriptor", &[3, 0, 0, 0, 0x1000]),
    ("execveat", "the binary's, without AT_EMPTY_PATH", &[1023, 0, 0, 0, 0]),
    ("execveat", "the binary's, with AT_SYMLINK_NOFOLLOW", &[1023, 0, 0, 0, 0x1100]),
    ("fadvise64", "POSIX_FADV_DONTNEED", &[0, 0, 0, 4]),
    ("fcntl", "F_OFD_SETLK: kernel memory that counts against nobody", &[0, 37]),
    ("fcntl", "F_OFD_SETLKW", &[0, 38]),
    ("fcntl", "F_SETOWN", &[0, 8, 1]),
    ("fcntl", "F_SETSIG", &[0, 10, 9]),
    ("fcntl", "F_SETOWN_EX", &[0, 15]),
    ("fcntl", "F_SETLEASE", &[0, 1024, 1]),
    ("fcntl", "F_NOTIFY", &[0, 1026, 1]),
    ("fcntl", "F_SETPIPE_SZ", &[1, 1031, 1 << 20]),
    ("fcntl", "F_ADD_SEALS", &[0, 1033, 1]),
    ("fcntl", "F_SET_RW_HINT", &[0, 1036]),
    ("fcntl", "F_SETLEASE below high bits", &[0, 0x1_0000_0400, 1]),
    ("getsockopt", "SO_PEERPIDFD", &[3, 1, 77]),
    ("getsockopt", "SO_PEERGROUPS", &[3, 1, 59]),
    ("getsockopt", "SO_GET_FILTER", &[3, 1, 26]),
    ("getsockopt", "TCP_ZEROCOPY_RECEIVE", &[3, 6, 35]),
    ("getsockopt", "SO_ORIGINAL_DST", &[3, 0, 80]),
    ("getsockopt", "ARPT_SO_GET_ENTRIES", &[3, 0, 97]),
    ("ioctl", "TIOCSTI", &[1, 0x5412]),
    ("ioctl", "TIOCSTI with every high bit", &[1, 0xffff_ffff_0000_5412]),
    ("ioctl", "TIOCSTI with one high bit", &[1, 0x1_0000_5412]),
    ("ioctl", "TIOCLINUX", &[1, 0x541c]),
    ("ioctl", "TIOCLINUX with high bits", &[1, 0x8000_0000_0000_541c]),
    ("ioctl", "TIOCSCTTY", &[1, 0x540e]),
    ("ioctl", "TIOCSETD", &[1, 0x5423]),
    ("ioctl", "FIOASYNC", &[1, 0x5452]),
    ("ioctl", "FIOSETOWN", &[1, 0x8901]),
    ("ioctl", "FS_IOC_SETFLAGS", &[0, 0x4008_6602]),
    ("ioctl", "FICLONE", &[0, 0x4004_9409]),
    ("ioctl", "FIFREEZE", &[0, 0xc004_5877]),
    ("ioctl", "NS_GET_USERNS", &[0, 0xb701]),
    ("ioctl", "SIOCSIFADDR", &[0, 0x8916]),
    ("ioctl", "SIOCSIFFLAGS", &[0, 0x8914]),
    ("ioctl", "SIOCGIFCONF", &[0, 0x8912]),
    ("ioctl", "RNDADDTOENTCNT", &[0, 0x4004_5201]),
    ("ioctl", "KVM_CREATE_VM", &[0, 0xae01]),
    ("ioctl", "FS_IOC_ENABLE_VERITY", &[0, 0x4080_6685]),
    ("madvise", "MADV_MERGEABLE", &[0, 4096, 12]),
    ("madvise", "MADV_HWPOISON", &[0, 4096, 100]),
    ("madvise", "MADV_SOFT_OFFLINE", &[0, 4096, 101]),
    ("membarrier", "GLOBAL", &[1]),
    ("membarrier", "GLOBAL_EXPEDITED", &[2]),
    ("mmap", "writable and executable", &[0, 4096, 7, 0x22]),
    ("mmap", "the host's huge pages", &[0, 2 << 20, 3, 0x4_0022]),
    ("mmap", "executable without a file", &[0, 4096, 5, 0x22]),
    ("mmap", "a file, writable and executable", &[0, 4096, 6, 2]),
    ("mmap", "writable and executable below high bits", &[0, 4096, 0xffff_ffff_0000_0007, 0x22]),
    ("mprotect", "PROT_EXEC", &[0, 4096, 5]),
    ("mprotect", "PROT_EXEC below high bits", &[0, 4096, 0x1_0000_0004]),
    ("pkey_mprotect", "PROT_EXEC", &[0, 4096, 5, 0]),
    ("personality", "ADDR_NO_RANDOMIZE", &[0x0004_0000]),
    ("personality", "READ_IMPLIES_EXEC", &[0x0040_0000]),
    ("personality", "PER_LINUX32", &[8]),
    ("prctl", "PR_SET_PDEATHSIG", &[1, 0]),
    ("prctl", "PR_SET_DUMPABLE", &[4, 1]),
    ("prctl", "PR_SET_KEEPCAPS", &[8, 1]),
    ("prctl", "PR_SET_SECCOMP", &[22, 1]),
    ("prctl", "PR_CAPBSET_DROP", &[24, 0]),
    ("prctl", "PR_SET_TSC", &[26, 1]),
    ("prctl", "PR_SET_SECUREBITS", &[28, 0]),
    ("prctl", "PR_SET_MM", &[35, 1]),
    ("prctl", "PR_CAP_AMBIENT", &[47, 2, 21]),
    ("prctl", "PR_SET_SPECULATION_CTRL", &[53, 0, 2]),
    ("prctl", "PR_SET_IO_FLUSHER", &[57, 1]),
    ("prctl", "PR_SET_SYSCALL_USER_DISPATCH", &[59, 1]),
    ("prctl", "PR_SCHED_CORE", &[62, 1]),
    ("prctl", "PR_SET_MDWE", &[65, 0]),
    ("prctl", "PR_SET_MEMORY_MERGE", &[67, 1]),
    ("prctl", "PR_SET_PTRACER", &[0x5961_6d61, NONE]),
    ("prctl", "PR_SET_MM below high bits", &[0x1_0000_0023, 1]),
    ("preadv2", "RWF_NOWAIT", &[0, 0, 0, 0, 0, 8]),
    ("prlimit64", "another process", &[1]),
    ("prlimit64", "RLIMIT_CORE", &[0, 4, 0x1000]),
    ("prlimit64", "another process, below high bits", &[0x1_0000_0001]),
    ("renameat2", "RENAME_WHITEOUT", &[NONE, 0, NONE, 0, 4]),
    ("sendmmsg", "MSG_FASTOPEN", &[3, 0, 1, 0x2000_0000]),
    ("sendmmsg", "MSG_OOB", &[3, 0, 1, 1]),
    ("sendmsg", "MSG_FASTOPEN", &[3, 0, 0x2000_0000]),
    ("sendmsg", "MSG_OOB", &[3, 0, 1]),
    ("sendto", "MSG_FASTOPEN", &[3, 0, 0, 0x2000_0000]),
    ("sendto", "MSG_FASTOPEN among others, below high bits", &[3, 0, 0, 0xffff_ffff_2000_4040]),
    ("sendto", "MSG_OOB", &[3, 0, 0, 1]),
    ("setrlimit", "RLIMIT_CORE", &[4, 0x1000]),
    ("setrlimit", "RLIMIT_CORE below high bits", &[0x1_0000_0004, 0x1000]),
    ("setsockopt", "SO_DEBUG", &[3, 1, 1]),
    ("setsockopt", "SO_SNDBUFFORCE", &[3, 1, 32]),
    ("setsockopt", "SO_ATTACH_FILTER", &[3, 1, 26]),
    ("setsockopt", "SO_BINDTODEVICE", &[3, 1, 25]),
    ("setsockopt", "SO_MARK", &[3, 1, 36]),
    ("setsockopt", "SO_ATTACH_BPF", &[3, 1, 50]),
    ("setsockopt", "SO_ZEROCOPY", &[3, 1, 60]),
    ("setsockopt", "TCP_CONGESTION", &[3, 6, 13]),
    ("setsockopt", "TCP_REPAIR", &[3, 6, 19]),
    ("setsockopt", "TCP_FASTOPEN", &[3, 6, 23]),
    ("setsockopt", "TCP_FASTOPEN_CONNECT", &[3, 6, 30]),
    ("setsockopt", "TCP_ULP", &[3, 6, 31]),
    ("setsockopt", "TCP_MD5SIG", &[3, 6, 14]),
    ("setsockopt", "IP_OPTIONS", &[3, 0, 4]),
    ("setsockopt", "IP_TRANSPARENT", &[3, 0, 19]),
    ("setsockopt", "IPT_SO_SET_REPLACE", &[3, 0, 64]),
    ("setsockopt", "IPV6_2292PKTOPTIONS", &[3, 41, 6]),
    ("setsockopt", "MPTCP", &[3, 284, 1]),
    ("setsockopt", "TLS_TX", &[3, 282, 1]),
    ("setsockopt", "TCP_ULP below high bits", &[3, 0x1_0000_0006, 0x1_0000_001f]),
    ("socket", "AF_NETLINK", &[16, 3, 0]),
    ("socket", "AF_PACKET", &[17, 3, 0]),
    ("socket", "AF_ALG", &[38, 5, 0]),
    ("socket", "AF_VSOCK", &[40, 1, 0]),
    ("socket", "AF_XDP", &[44, 3, 0]),
    ("socket", "UDP", &[2, 2, 0]),
    ("socket", "raw", &[2, 3, 1]),
    ("socket", "MPTCP", &[2, 1, 262]),
    ("socket", "SMC by IPPROTO_SMC", &[2, 1, 256]),
    ("socket", "SCTP", &[10, 1, 132]),
    ("socket", "AF_NETLINK below high bits", &[0x1_0000_0010, 3, 0]),
    ("socketpair", "AF_TIPC", &[30, 1, 0]),
    ("socketpair", "AF_INET", &[2, 1, 0]),
];

#[tokio::test]
async fn what_rules_are_against_is_refused() {
    for (cell, profile) in [
        (Cell::new("arguments"), HTTP),
        (Cell::new("arguments").contract(Contract::Ipc), IPC),
        (Cell::new("arguments").allow(Allow::Processes), Profile { processes: true, ..HTTP }),
    ] {
        let decisions: BTreeMap<_, _> = seccomp::decisions(&profile).unwrap().into_iter().collect();
        let mut numbers = BTreeMap::new();
        for (number, decision) in &decisions {
            let name = syscall_name(*number).unwrap();
            numbers.insert(name, *number);
            let named = DANGEROUS.iter().any(|(call, ..)| *call == name);
            let by_arguments = matches!(decision, Decision::ByArguments { .. });
            assert!(named || !by_arguments, "{name} has conditions: say in DANGEROUS what they are against");
        }
        let call = |(name, _, given): &(&str, &str, &[u64])| {
            let mut args = [NONE; 6];
            args[..given.len()].copy_from_slice(given);
            (*numbers.get(name).unwrap_or_else(|| panic!("no rule for {name}")), args)
        };
        let calls: Vec<_> = DANGEROUS.iter().map(call).collect();
        let results = results(&cell, &calls).await;
        let mut through = Vec::new();
        for (((name, what, _), (number, args)), result) in DANGEROUS.iter().zip(&calls).zip(&results) {
            let action = decisions[number].of(args);
            if action == Action::Allow || *result != refusal(action) {
                through.push(format!("{name} {what}: {result}, the policy says {action:?}"));
            }
        }
        assert!(through.is_empty(), "{profile:?}: {through:#?}");
    }
}
