//! The supervisor's own filter, run over every number and over the arguments that matter.

use super::data::{self, Numbers};
use super::interpreter::{Call, run};
use super::*;

const ARCHES: [Arch; 2] = [Arch::X86_64, Arch::Aarch64];

struct Filter {
    arch: Arch,
    numbers: Numbers,
    program: Vec<u8>,
}

impl Filter {
    fn all() -> [Self; 2] {
        ARCHES.map(|arch| Self {
            arch,
            numbers: data::parse(arch.files().numbers).unwrap(),
            program: supervisor_for(arch).unwrap(),
        })
    }

    fn number(&self, number: u32, args: &[u64]) -> Action {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        run(&self.program, Call { arch: self.arch.audit(), number, args: all })
    }

    fn call(&self, name: &str, args: &[u64]) -> Action {
        self.number(self.numbers[name], args)
    }
}

#[test]
fn it_says_what_the_files_say_and_stays_small() {
    for filter in Filter::all() {
        let table = policy::supervisor(filter.arch).unwrap();
        assert!(filter.program.len() / 8 < 600, "{} instructions", filter.program.len() / 8);
        for number in (0..5000).chain([0x3fff_ffff]) {
            let got = filter.number(number, &[]);
            match table.get(&number) {
                None => assert_eq!(got, Action::EPERM, "{number}"),
                Some(Decision::Always(action)) => assert_eq!(got, *action, "{number}"),
                Some(Decision::ByArguments { cases, otherwise }) => {
                    let named = cases.iter().any(|(_, action)| *action == got);
                    assert!(named || got == *otherwise, "{number}");
                }
            }
        }
    }
}

#[test]
fn who_took_it_over_is_ended() {
    let attacks = "execve execveat ptrace process_vm_readv process_vm_writev pidfd_getfd pidfd_send_signal bpf \
        perf_event_open userfaultfd memfd_create memfd_secret add_key request_key keyctl setuid setgid setreuid \
        setregid setresuid setresgid setfsuid setfsgid setgroups capset personality mount umount2 pivot_root \
        chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr setns unshare \
        open_by_handle_at mknodat init_module finit_module delete_module kexec_load kexec_file_load reboot \
        swapon swapoff settimeofday clock_settime fanotify_init";
    for filter in Filter::all() {
        for name in attacks.split_whitespace() {
            assert_eq!(filter.call(name, &[]), Action::Kill, "{name}");
        }
        for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3"] {
            assert_eq!(filter.call(name, &[]), Action::ENOSYS, "{name}");
        }
        for name in [
            "listen",
            "linkat",
            "kill",
            "tkill",
            "mlockall",
            "sched_setscheduler",
            "pidfd_open",
            "symlinkat",
            "setpriority",
        ] {
            assert_eq!(filter.call(name, &[]), Action::EPERM, "{name}");
        }
    }
    let [x86, _] = Filter::all();
    for name in ["fork", "vfork", "iopl", "ioperm", "modify_ldt"] {
        assert_eq!(x86.call(name, &[]), Action::Kill, "{name}");
    }
}

#[test]
fn threads_only() {
    for filter in Filter::all() {
        let thread = 0x003d_0f00_u64;
        assert_eq!(filter.call("clone", &[thread]), Action::Allow);
        for flags in [0x0120_0011, 0x4111, thread | 0x1000_0000, thread | 0x2_0000, thread | 0x4000_0000] {
            assert_eq!(filter.call("clone", &[flags]), Action::Kill, "{flags:#x}");
        }
    }
}

#[test]
fn nothing_becomes_executable() {
    for filter in Filter::all() {
        for prot in 0..8_u64 {
            let want = if prot & 4 == 0 { Action::Allow } else { Action::Errno(13) };
            for flags in [0x2, 0x22] {
                assert_eq!(filter.call("mmap", &[0, 4096, prot, flags]), want, "{prot}");
            }
            assert_eq!(filter.call("mprotect", &[0, 4096, prot]), want, "{prot}");
        }
        assert_eq!(filter.call("pkey_mprotect", &[0, 4096, 4]), Action::EPERM);
    }
}

#[test]
fn sockets_of_few_families() {
    for filter in Filter::all() {
        for family in 0..64_u64 {
            for kind in 0..16_u64 {
                for protocol in [0, 1, 2, 6, 17, 132, 255, 256, 262_u64] {
                    let inet =
                        [2, 10].contains(&family) && [1, 2].contains(&kind) && [0, 6, 17].contains(&protocol);
                    let route = family == 16 && protocol == 0;
                    let got = filter.call("socket", &[family, kind | 0x80800, protocol]);
                    assert_eq!(got == Action::Allow, inet || route, "{family} {kind} {protocol}");
                }
            }
            let pair = filter.call("socketpair", &[family, 1, 0]);
            assert_eq!(pair == Action::Allow, family == 1, "{family}");
        }
        // SO_ATTACH_FILTER, SO_ATTACH_BPF, SO_MARK; TCP_ULP, TCP_REPAIR, TCP_FASTOPEN
        for (level, option) in [(1, 26), (1, 50), (1, 36), (6, 31), (6, 19), (6, 23), (0, 64)] {
            let got = filter.call("setsockopt", &[3, level, option]);
            assert_eq!(got, Action::Errno(92), "{level} {option}");
        }
        // TIOCSTI and TIOCLINUX, with high bits too
        for command in [0x5412, 0x541c, (1 << 32) | 0x5412_u64] {
            assert_ne!(filter.call("ioctl", &[0, command]), Action::Allow);
        }
    }
}

#[test]
fn entries_of_other_machines_are_killed() {
    let [x86, arm] = Filter::all();
    for number in 0..600 {
        for arch in [0x4000_0003, 0x4000_0028, 0xc000_00b7, 0] {
            assert_eq!(run(&x86.program, Call { arch, number, args: [0; 6] }), Action::Kill);
        }
        for arch in [0x4000_0003, 0x4000_0028, 0xc000_003e, 0] {
            assert_eq!(run(&arm.program, Call { arch, number, args: [0; 6] }), Action::Kill);
        }
        assert_eq!(x86.number(number | 0x4000_0000, &[]), Action::Kill);
    }
}
