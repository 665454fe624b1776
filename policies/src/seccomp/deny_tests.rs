//! What the second filter refuses even where the first allows it.

use std::collections::BTreeSet;

use super::interpreter::{Call, run};
use super::policy::{Policy, denied};
use super::tests::{ARCHES, Filters, high, profiles};
use super::*;

/// Filters of a policy that allows every call that `deny/` names, whatever the arguments: as by an entry of
/// `[allow]` for each.
fn careless(arch: Arch, profile: Profile) -> Filters {
    let mut filters = Filters::new(arch, profile);
    let mut worker = Policy::compose(arch, &profile).unwrap().worker;
    for (number, _) in denied(arch, &profile).unwrap() {
        worker.insert(number, Decision::Always(Action::Allow));
    }
    filters.programs = programs(arch, &Policy::around(arch, &profile, worker).unwrap()).unwrap();
    filters
}

const KILL: Action = Action::Kill;
const EPERM: Action = Action::Errno(1);
const EINVAL: Action = Action::Errno(22);
const ENOTTY: Action = Action::Errno(25);
const EOPNOTSUPP: Action = Action::Errno(95);
const EAFNOSUPPORT: Action = Action::Errno(97);

/// Call, the argument that counts, values, and what comes of them.
const NEVER: &[(&str, usize, &[u32], Action)] = &[
    ("unshare", 0, &[0, 0x1000_0000, 0x2_0000], KILL),
    ("setns", 1, &[0, 0x4000_0000], KILL),
    ("clone3", 1, &[88], Action::ENOSYS),
    ("io_uring_setup", 0, &[1], Action::ENOSYS),
    // CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}, alone and with a thread's flags
    ("clone", 0, &[0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000], EPERM),
    ("clone", 0, &[0x1000_0000, 0x2000_0000, 0x4000_0000, 0x103d_0f00, 0x403d_0f00], EPERM),
    ("close_range", 2, &[2, 6], EINVAL), // CLOSE_RANGE_UNSHARE, with CLOSE_RANGE_CLOEXEC too
    ("ioctl", 1, &[0x5412, 0x541c], ENOTTY), // TIOCSTI, TIOCLINUX
    // NETLINK, PACKET, ALG, VSOCK, XDP, TIPC, SMC, none, one to come
    ("socket", 0, &[16, 17, 38, 40, 44, 30, 43, 0, 60], EAFNOSUPPORT),
    ("socketpair", 0, &[30, 16, 2], EAFNOSUPPORT),
    ("sendto", 3, &[0x2000_0000, 1, 0x2000_4040], EOPNOTSUPP),
    ("sendmsg", 2, &[0x2000_0000, 1, 0x2000_4040], EOPNOTSUPP),
    ("sendmmsg", 3, &[0x2000_0000, 1, 0x2000_4040], EOPNOTSUPP),
    ("mmap", 3, &[0x4_0000, 0x4_0022, 0x5404_0022], Action::Errno(13)), // MAP_HUGETLB, with a size too
    ("personality", 0, &[0x40_0000, 0x4_0000, 8], EPERM),
    // PR_SET_{PDEATHSIG,DUMPABLE,KEEPCAPS,SECUREBITS,MM}, PR_CAP_AMBIENT, PR_SET_{SPECULATION_CTRL,
    // SYSCALL_USER_DISPATCH}, PR_SCHED_CORE, PR_SET_{MEMORY_MERGE,PTRACER}
    ("prctl", 0, &[1, 4, 8, 28, 35, 47, 53, 59, 62, 67, 0x5961_6d61], EINVAL),
];

/// The same, for who has no `jit`.
const NEVER_WITHOUT_JIT: &[(&str, usize, &[u32], Action)] = &[
    ("mmap", 2, &[6, 7], Action::Errno(13)),
    ("mprotect", 2, &[4, 5, 6, 7], Action::Errno(13)),
    ("pkey_mprotect", 2, &[4, 5, 6, 7], Action::Errno(13)),
];

/// With every other argument 0 or all ones, and rubbish above the 32 bits that the kernel looks at.
fn calls(argument: usize, value: u32) -> [[u64; 6]; 3] {
    let with = |others: u64, value: u64| {
        let mut args = [others; 6];
        args[argument] = value;
        args
    };
    [with(0, value.into()), with(u64::MAX, value.into()), with(0, high(value))]
}

#[test]
fn what_an_allow_entry_would_open_stays_refused() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = careless(arch, profile);
            let without_jit = NEVER_WITHOUT_JIT.iter().filter(|_| !profile.jit);
            let mut tried = BTreeSet::new();
            for (name, argument, values, want) in NEVER.iter().chain(without_jit) {
                tried.insert(filters.numbers[*name]);
                for args in values.iter().flat_map(|value| calls(*argument, *value)) {
                    let number = filters.numbers[*name];
                    // By itself: of prctl the first filter refuses more than such an entry could open.
                    let alone = run(&filters.programs.last, Call { arch: arch.audit(), number, args });
                    let got = (alone, filters.number(number, args));
                    assert_eq!(got, (*want, *want), "{arch:?} {profile:?} {name} {args:x?}");
                }
            }
            let named: BTreeSet<_> = denied(arch, &profile).unwrap().into_keys().collect();
            assert_eq!(tried, named, "each call that deny/ names must be tried here");
        }
    }
}

/// And the entry does open what is denied nowhere: the test above is not about something else.
#[test]
fn what_is_not_denied_such_an_entry_opens() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = careless(arch, profile);
            for (name, args) in [
                ("clone", &[0x0120_0011][..]),
                ("ioctl", &[0, 0x540e]),
                ("socket", &[2, 2, 0]),
                ("sendto", &[3, 0, 0, 0x4000]),
                ("prctl", &[65]),
                ("mmap", &[0, 4096, 5, 0x22]),
            ] {
                assert_eq!(filters.call(name, args), Action::Allow, "{arch:?} {profile:?} {name}");
            }
        }
    }
}

/// The policy refuses all of it already, in the same words: the second filter takes nothing away.
#[test]
fn nothing_is_denied_that_the_policy_allows() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            let worker = Policy::compose(arch, &profile).unwrap().worker;
            for (number, decision) in denied(arch, &profile).unwrap() {
                let argument = match &decision {
                    Decision::ByArguments { cases, .. } => usize::from(cases[0].0[0].arg),
                    Decision::Always(_) => 0,
                };
                let near = (0..32).map(|bit| 1 << bit).chain(0..256);
                let known = NEVER.iter().chain(NEVER_WITHOUT_JIT);
                let known = known.flat_map(|(_, _, values, _)| values.iter().copied());
                for args in near.chain(known).flat_map(|value| calls(argument, value)) {
                    let want = worker.get(&number).map_or(Action::ENOSYS, |policy| policy.of(&args));
                    assert_eq!(filters.number(number, args), want, "{arch:?} {profile:?} {number} {args:x?}");
                }
            }
        }
    }
}
