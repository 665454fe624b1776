//! Every filter is run over every number, and over the arguments that matter.

use super::data::{self, Numbers};
use super::interpreter::{Call, run};
use super::policy::Policy;
use super::*;

pub(super) const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];
const EPERM: Action = Action::Errno(1);
const EACCES: Action = Action::Errno(13);
const EINVAL: Action = Action::Errno(22);

pub(super) fn profiles() -> Vec<Profile> {
    let mut all = Vec::new();
    for contract in [Contract::Http, Contract::Ipc] {
        for processes in [false, true] {
            for jit in [false, true] {
                all.push(Profile { contract, processes, jit });
            }
        }
    }
    all
}

fn plain(contract: Contract) -> Profile {
    Profile { contract, processes: false, jit: false }
}

pub(super) struct Filters {
    pub(super) arch: Arch,
    pub(super) numbers: Numbers,
    pub(super) programs: Programs,
}

impl Filters {
    pub(super) fn new(arch: Arch, profile: Profile) -> Self {
        let numbers = data::parse(arch.files().numbers).unwrap();
        Self { arch, numbers, programs: compile_for(arch, &profile).unwrap() }
    }

    /// Both filters: what the Worker gets. The strictest wins; of two errors that of the later one.
    pub(super) fn number(&self, number: u32, args: [u64; 6]) -> Action {
        let call = Call { arch: self.arch.audit(), number, args };
        match (run(&self.programs.base, call), run(&self.programs.last, call)) {
            (Action::Kill, _) | (_, Action::Kill) => Action::Kill,
            (base, Action::Allow) => base,
            (_, last) => last,
        }
    }

    pub(super) fn call(&self, name: &str, args: &[u64]) -> Action {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.number(self.numbers[name], all)
    }

    /// The blank, which has only the base filter.
    fn blank(&self, name: &str, args: &[u64]) -> Action {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let call = Call { arch: self.arch.audit(), number: self.numbers[name], args: all };
        run(&self.programs.base, call)
    }
}

/// Any value of the low 32 bits, with rubbish above that the kernel doesn't look at.
pub(super) fn high(value: u32) -> u64 {
    0xdead_beef_0000_0000 | u64::from(value)
}

#[test]
fn every_profile_compiles_and_stays_small() {
    for arch in ARCHES {
        for profile in profiles() {
            let programs = compile_for(arch, &profile).unwrap();
            let (base, last) = programs.instructions();
            println!("{arch:?} {profile:?}: {base} + {last} instructions");
            assert!(base < 600 && last < 200, "{base} + {last}");
        }
    }
}

#[test]
fn compiled_tree_says_what_the_policy_says_for_every_number() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            let policy = Policy::compose(arch, &profile).unwrap();
            for number in (0..5000).chain([0x3fff_ffff]) {
                for (program, table, default) in [
                    (&filters.programs.base, &policy.base, Action::ENOSYS),
                    (&filters.programs.last, &policy.last, Action::Allow),
                ] {
                    let got = run(program, Call { arch: arch.audit(), number, args: [0; 6] });
                    match table.get(&number) {
                        None => assert_eq!(got, default, "{number}"),
                        Some(Decision::Always(action)) => assert_eq!(got, *action, "{number}"),
                        Some(Decision::ByArguments { cases, otherwise }) => {
                            let any = cases.iter().any(|(_, action)| *action == got);
                            assert!(any || got == *otherwise, "{number}");
                        }
                    }
                }
            }
        }
    }
}

/// The programs and `Decision::of` agree on every argument near to one that a rule names.
#[test]
fn compiled_tree_says_what_the_policy_says_for_arguments() {
    for (arch, profile) in ARCHES.into_iter().flat_map(|arch| profiles().into_iter().map(move |p| (arch, p)))
    {
        let filters = Filters::new(arch, profile);
        for (number, decision) in decisions_for(arch, &profile).unwrap() {
            let Decision::ByArguments { cases, .. } = &decision else { continue };
            let mut values = std::collections::BTreeSet::from([0, u32::MAX]);
            for test in cases.iter().flat_map(|(tests, _)| tests) {
                match &test.kind {
                    TestKind::OneOf(_, wanted) => values.extend(wanted),
                    TestKind::All(bits) | TestKind::None(bits) => {
                        values.extend([*bits, bits & bits.wrapping_neg()])
                    }
                }
            }
            let beside: Vec<_> =
                values.iter().flat_map(|v| [v.wrapping_sub(1), *v, v.wrapping_add(1)]).collect();
            let tested: std::collections::BTreeSet<_> =
                cases.iter().flat_map(|(tests, _)| tests).map(|test| usize::from(test.arg)).collect();
            for first in &beside {
                for second in &beside {
                    let mut args = [0; 6];
                    for (at, arg) in tested.iter().enumerate() {
                        args[*arg] = high([*first, *second, 0][at]);
                    }
                    assert_eq!(filters.number(number, args), decision.of(&args), "{number} {args:x?}");
                }
            }
        }
    }
}

#[test]
fn other_architectures_entries_are_killed() {
    // i386, 32-bit ARM, none, and each the other
    let foreign = |arch| match arch {
        Arch::X86_64 => [0x4000_0003, 0x4000_0028, 0, 0xc000_00b7],
        Arch::Aarch64 => [0x4000_0003, 0x4000_0028, 0, 0xc000_003e],
    };
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            for program in [&filters.programs.base, &filters.programs.last] {
                for arch in foreign(arch) {
                    for number in 0..600 {
                        let call = Call { arch, number, args: [0; 6] };
                        assert_eq!(run(program, call), Action::Kill, "{number} by {arch:#x}");
                    }
                }
            }
            // x32 is a second table of x86_64. aarch64 has none, so such numbers are only unknown.
            let want = if arch == Arch::X86_64 { Action::Kill } else { Action::ENOSYS };
            for number in (0..600).map(|n| n | 0x4000_0000).chain([0x7fff_ffff, 0x8000_0000, u32::MAX]) {
                assert_eq!(filters.number(number, [0; 6]), want, "{arch:?} {number:#x}");
            }
        }
    }
}

#[test]
fn unmodified_servers_have_what_they_use() {
    // darkhttpd, lighttpd, caddy, python3, node, a tokio server and busybox together, less what
    // only starts them (execve) and what libraries do without (clone3).
    let used = "accept accept4 access alarm bind brk capget chdir close connect dup2 epoll_create1 epoll_ctl \
        epoll_pwait epoll_wait eventfd2 exit exit_group futex getcwd getdents64 getegid geteuid getgid getpid \
        getrandom getrlimit getrusage getsockname gettid getuid listen lseek madvise mmap mprotect munmap \
        nanosleep newfstatat openat pipe2 pkey_alloc poll pread64 prlimit64 pselect6 read readlink readlinkat \
        recvfrom rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield sendto \
        set_robust_list set_tid_address shutdown sigaltstack statx sysinfo tgkill uname write writev";
    let filters = Filters::new(Arch::X86_64, plain(Contract::Http));
    for name in used.split_whitespace() {
        assert_eq!(filters.call(name, &[]), Action::Allow, "{name}");
    }
    assert_eq!(filters.call("clone3", &[]), Action::ENOSYS);
    // glibc's pthread_create, musl's, Go's
    for flags in [0x003d_0f00, 0x007d_0f00, 0x0005_0f00] {
        assert_eq!(filters.call("clone", &[flags]), Action::Allow, "{flags:#x}");
    }
    assert_eq!(filters.call("arch_prctl", &[0x1002]), Action::Allow);
    assert_eq!(filters.call("fcntl", &[3, 3]), Action::Allow);
    assert_eq!(filters.call("ioctl", &[3, 0x5421]), Action::Allow);
    assert_eq!(filters.call("socket", &[2, 0x80801, 0]), Action::Allow);
    assert_eq!(filters.call("setsockopt", &[3, 6, 1]), Action::Allow);
    assert_eq!(filters.call("prctl", &[15]), Action::Allow);
}

#[test]
fn only_loopback_stream_sockets() {
    let unix = |filters: &Filters| filters.call("socket", &[1, 1, 0]);
    for arch in ARCHES {
        let http = Filters::new(arch, plain(Contract::Http));
        let ipc = Filters::new(arch, plain(Contract::Ipc));
        assert_eq!(unix(&http), Action::Allow);
        assert_eq!(unix(&ipc), Action::Errno(97));
        for family in 0..64 {
            for kind in 0..16 {
                for protocol in [0, 1, 2, 6, 17, 132, 136, 255, 256, 262] {
                    let stream = matches!(family, 2 | 10) && kind == 1 && matches!(protocol, 0 | 6);
                    for flags in [0, 0x800, 0x80000, 0x80800] {
                        let got = http.call("socket", &[high(family), high(kind | flags), high(protocol)]);
                        assert_eq!(got == Action::Allow, family == 1 || stream, "{family} {kind} {protocol}");
                        let pair = http.call("socketpair", &[high(family), high(kind | flags), 0]);
                        assert_eq!(pair == Action::Allow, family == 1);
                        assert_ne!(ipc.call("socket", &[high(family), high(kind), 0]), Action::Allow);
                    }
                }
            }
        }
        for (name, index) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
            let mut args = [0; 6];
            assert_eq!(http.call(name, &args), Action::Allow);
            for (flag, what) in [(0x2000_0000, "MSG_FASTOPEN"), (0x1, "MSG_OOB")] {
                args[index] = high(flag | 0x4000);
                for filters in [&http, &ipc] {
                    assert_eq!(filters.call(name, &args), Action::Errno(95), "{name} with {what}");
                }
            }
        }
        // TCP_FASTOPEN, TCP_FASTOPEN_CONNECT, TCP_ULP, TCP_REPAIR, TCP_CONGESTION; SO_ATTACH_*; SO_MARK
        for (level, option) in [
            (6, 23),
            (6, 30),
            (6, 31),
            (6, 19),
            (6, 13),
            (1, 26),
            (1, 50),
            (1, 51),
            (1, 52),
            (1, 36),
            (263, 1),
        ] {
            let got = http.call("setsockopt", &[3, high(level), high(option)]);
            assert_eq!(got, Action::Errno(92), "{level} {option}");
        }
    }
}

#[test]
fn threads_but_no_processes_and_never_a_namespace() {
    let namespaces = [0x20000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            let (thread, fork) = (0x003d_0f00, 0x0120_0011);
            let processes = if profile.processes { Action::Allow } else { EPERM };
            assert_eq!(filters.call("clone", &[high(thread)]), Action::Allow);
            assert_eq!(filters.call("clone", &[high(fork)]), processes);
            assert_eq!(filters.call("clone", &[high(0x4111)]), processes, "vfork by clone");
            for flag in namespaces {
                assert_eq!(filters.call("clone", &[high(thread | flag)]), EPERM, "{flag:#x}");
                assert_eq!(filters.call("clone", &[high(fork | flag)]), EPERM, "{flag:#x}");
            }
            assert_eq!(filters.call("clone3", &[0, 88]), Action::ENOSYS);
            assert_eq!(filters.call("unshare", &[0x1000_0000]), Action::Kill);
            assert_eq!(filters.call("setns", &[]), Action::Kill);
            assert_eq!(filters.call("execve", &[]), EPERM);
            if arch == Arch::X86_64 {
                assert_eq!(filters.call("fork", &[]), processes);
                assert_eq!(filters.call("vfork", &[]), processes);
            }
        }
    }
}

#[test]
fn exec_only_from_the_one_descriptor() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            assert_eq!(filters.call("execveat", &[1023, 0, 0, 0, 0x1000]), Action::Allow);
            for (fd, flags) in [(1023, 0), (1023, 0x1100), (1022, 0x1000), (3, 0x1000), (0xffff_ff9c, 0)] {
                assert_eq!(filters.call("execveat", &[high(fd), 0, 0, 0, high(flags)]), EPERM);
            }
        }
    }
}

#[test]
fn memory_is_never_made_executable_without_the_waiver() {
    let (private, anonymous) = (2, 0x22);
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            let refused = if profile.jit { Action::Allow } else { EACCES };
            for prot in 0..8u32 {
                let write_exec = prot & 6 == 6;
                let exec = prot & 4 != 0;
                let mmap = |flags| filters.call("mmap", &[0, 4096, high(prot), high(flags), 3, 0]);
                assert_eq!(mmap(private), if write_exec { refused } else { Action::Allow });
                assert_eq!(mmap(anonymous), if exec { refused } else { Action::Allow });
                for name in ["mprotect", "pkey_mprotect"] {
                    let got = filters.call(name, &[0, 4096, high(prot), 0]);
                    assert_eq!(got, if exec { refused } else { Action::Allow });
                }
            }
            assert_eq!(filters.call("personality", &[high(0x0040_0000)]), EPERM);
            assert_eq!(filters.call("personality", &[high(u32::MAX)]), Action::Allow);
            assert_eq!(filters.call("madvise", &[0, 4096, 12]), EINVAL, "MADV_MERGEABLE");
        }
    }
}

#[test]
fn ioctl_is_an_allow_list_of_32_bits() {
    for arch in ARCHES {
        for contract in [Contract::Http, Contract::Ipc] {
            let filters = Filters::new(arch, plain(contract));
            let allowed = [0x541b, 0x5421, 0x5450, 0x5451, 0x5401, 0x540f, 0x5411, 0x5413];
            for command in 0..0x1_0000u32 {
                let want = if allowed.contains(&command) { Action::Allow } else { Action::Errno(25) };
                assert_eq!(filters.call("ioctl", &[0, high(command)]), want, "{command:#x}");
            }
            for command in [0x5412, 0x541c] {
                for above in [1u64 << 32, 1 << 63, u64::MAX << 32] {
                    let got = filters.call("ioctl", &[0, above | command]);
                    assert_ne!(got, Action::Allow, "TIOCSTI, TIOCLINUX");
                }
            }
        }
    }
}

#[test]
fn what_the_blank_needs_is_gone_for_the_worker() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            for name in ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"]
            {
                assert_eq!(filters.blank(name, &[]), Action::Allow, "{name}");
                assert_eq!(filters.call(name, &[]), Action::ENOSYS, "{name}");
            }
            // PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_SECUREBITS, PR_SET_MDWE, PR_CAP_AMBIENT
            for option in [1u32, 4, 22, 28, 65, 47] {
                assert_eq!(filters.blank("prctl", &[option.into()]), Action::Allow, "{option}");
                assert_eq!(filters.call("prctl", &[high(option)]), EINVAL, "{option}");
            }
            // PR_SET_MM, PR_SET_PTRACER, PR_SCHED_CORE, PR_SET_SYSCALL_USER_DISPATCH
            for option in [35, 0x5961_6d61, 62, 59] {
                assert_eq!(filters.blank("prctl", &[option]), EINVAL, "{option}");
            }
        }
    }
}

#[test]
fn attacks_are_killed_whatever_is_waived() {
    let attacks = "ptrace process_vm_readv process_vm_writev pidfd_getfd bpf perf_event_open userfaultfd \
        memfd_secret add_key request_key keyctl mount umount2 pivot_root open_tree move_mount fsopen fsconfig \
        fsmount fspick mount_setattr setns unshare open_by_handle_at init_module finit_module delete_module \
        kexec_load kexec_file_load reboot swapon swapoff settimeofday clock_settime fanotify_init";
    // Asked for by harmless programs, too, which then do without.
    let absent = "io_uring_setup io_uring_enter io_uring_register memfd_create pidfd_open pidfd_send_signal \
        name_to_handle_at vmsplice process_madvise shmget semget msgget mq_open inotify_init1 openat2 mincore \
        process_mrelease rt_sigqueueinfo rt_tgsigqueueinfo remap_file_pages futex_waitv";
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            for name in attacks.split_whitespace() {
                assert_eq!(filters.call(name, &[]), Action::Kill, "{name}");
                assert_eq!(filters.blank(name, &[]), Action::Kill, "{name} from the blank");
            }
            for name in absent.split_whitespace() {
                assert_eq!(filters.call(name, &[]), Action::ENOSYS, "{name}");
            }
        }
    }
}

#[test]
fn nothing_shared_with_others_is_touched() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            assert_eq!(filters.call("fcntl", &[1, 1031, 1 << 20]), EINVAL, "F_SETPIPE_SZ");
            let locks = if profile.processes { Action::Allow } else { Action::NOTHING };
            for (command, want) in [(6, locks), (7, locks), (37, EINVAL), (38, EINVAL), (5, Action::Allow)] {
                assert_eq!(filters.call("fcntl", &[1, high(command)]), want, "lock {command}");
            }
            for option in [26, 59, 77] {
                assert_eq!(filters.call("getsockopt", &[3, 1, high(option)]), Action::Errno(92), "{option}");
            }
            assert_eq!(filters.call("getsockopt", &[3, 1, 4]), Action::Allow, "SO_ERROR");
            assert_eq!(filters.call("preadv2", &[3, 0, 1, 0, 0, 8]), Action::Errno(95), "RWF_NOWAIT");
            assert_eq!(filters.call("preadv2", &[3, 0, 1, 0, 0, 0]), Action::Allow);
            assert_eq!(filters.call("fadvise64", &[3, 0, 0, 4]), EINVAL, "POSIX_FADV_DONTNEED");
            for command in [1, 2, 4] {
                assert_eq!(filters.call("membarrier", &[command]), EINVAL, "{command}");
            }
        }
    }
}

/// What the first filter refuses is seen: no call only seems to happen in a blank, which raises walls.
#[test]
fn the_first_filter_does_not_lie() {
    for arch in ARCHES {
        for profile in profiles() {
            let programs = compile_for(arch, &profile).unwrap();
            let lies = |program: &[u8]| program.chunks(8).any(|at| at == [6, 0, 0, 0, 0, 0, 5, 0]);
            assert!(!lies(&programs.base), "{profile:?}");
            assert!(lies(&programs.last) || profile.processes, "{profile:?}");
        }
    }
}

/// A thread is one of its process, with its table of descriptors.
#[test]
fn threads_share_what_is_bounded() {
    // glibc, musl (with CLONE_DETACHED), Go, Zig.
    let usual = [0x003d_0f00, 0x007d_0f00, 0x0005_0f00, 0x0069_0f00 | 0x0014_0000];
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            for flags in usual {
                assert_eq!(filters.call("clone", &[high(flags)]), Action::Allow, "{flags:#x}");
                for (bit, name) in [(0x400, "FILES"), (0x200, "FS"), (0x4_0000, "SYSVSEM")] {
                    let want = if profile.processes { Action::Allow } else { EPERM };
                    assert_eq!(filters.call("clone", &[high(flags & !bit)]), want, "without CLONE_{name}");
                }
                let want = if profile.processes { Action::Allow } else { EPERM };
                assert_eq!(filters.call("clone", &[high(flags | 0x4000)]), want, "CLONE_VFORK");
            }
            for (flags, want) in [(0, Action::Allow), (4, Action::Allow), (2, EINVAL), (6, EINVAL)] {
                assert_eq!(filters.call("close_range", &[3, 9, high(flags)]), want, "close_range {flags}");
            }
            for name in ["splice", "tee", "sendfile"] {
                assert_eq!(filters.call(name, &[1]), EINVAL, "{name}");
            }
            let locks = if profile.processes { Action::Allow } else { Action::NOTHING };
            assert_eq!(filters.call("flock", &[1, 2]), locks);
            for name in ["fsync", "fdatasync"] {
                assert_eq!(filters.call(name, &[1]), Action::NOTHING, "{name}");
                assert_eq!(filters.blank(name, &[1]), Action::Allow, "{name} from the blank");
            }
        }
    }
}

#[test]
fn the_hash_names_the_programs() {
    let hashes: std::collections::HashSet<_> =
        profiles().iter().map(|profile| compile_for(Arch::X86_64, profile).unwrap().sha256()).collect();
    assert_eq!(hashes.len(), profiles().len());
    let profile = plain(Contract::Http);
    assert_eq!(compile(&profile).unwrap().sha256(), compile(&profile).unwrap().sha256());
}
