//! The launcher's own filter, which its children inherit.
//!
//! It can't be an allow-list of the launcher's calls: a filter can't be lifted, and the children
//! need others. It takes away what neither the launcher, nor a blank, nor a Worker ever calls, so
//! that whoever takes the launcher over finds no program to execute and no door into the kernel.

use cloister_ipc::launch::BINARY_FD;
use nix::libc;

const COUNT: u8 = 44;

/// Calls that are refused (with an error, so that a filter installed later decides how).
const DENIED: [libc::c_long; COUNT as usize] = [
    libc::SYS_execve, // blanks use execveat, with one descriptor
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    libc::SYS_mbind,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_chroot,
    libc::SYS_setdomainname,
    libc::SYS_nfsservctl,
    libc::SYS_mq_open,
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
];

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// First number of x32 (x86_64's second table).
const FOREIGN: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 0x06;

const ALLOW: u32 = 0x7fff_0000;
const REFUSE: u32 = 0x0005_0000 | 1; // EPERM
const KILL: u32 = 0x8000_0000;

/// Offset of the number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Offset of the architecture.
const ARCHITECTURE: u32 = 4;
/// Offset of the first argument's low half.
const FIRST: u32 = 16;

/// The program, as the kernel reads it.
pub(super) fn program() -> Vec<u8> {
    let mut out = Vec::new();
    let mut push = |code: u16, jt: u8, jf: u8, k: u32| {
        out.extend_from_slice(&code.to_ne_bytes());
        out.extend_from_slice(&[jt, jf]);
        out.extend_from_slice(&k.to_ne_bytes());
    };
    push(LOAD, 0, 0, ARCHITECTURE);
    push(JUMP_EQUAL, 1, 0, ARCH);
    push(RETURN, 0, 0, KILL);
    push(LOAD, 0, 0, NUMBER);
    push(JUMP_NOT_BELOW, 0, 1, FOREIGN);
    push(RETURN, 0, 0, KILL);
    for call in DENIED {
        push(JUMP_EQUAL, 0, 1, u32::try_from(call).unwrap_or(u32::MAX));
        push(RETURN, 0, 0, REFUSE);
    }
    // execveat only of the one descriptor that a blank puts its binary at.
    push(JUMP_EQUAL, 1, 0, u32::try_from(libc::SYS_execveat).unwrap_or(u32::MAX));
    push(RETURN, 0, 0, ALLOW);
    push(LOAD, 0, 0, FIRST);
    push(JUMP_EQUAL, 0, 1, BINARY_FD.cast_unsigned());
    push(RETURN, 0, 0, ALLOW);
    push(RETURN, 0, 0, REFUSE);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel answers to a call, walked through the bytes that it is given. The numbers are those
    /// of linux/bpf_common.h and linux/seccomp.h, so that a wrong constant above shows.
    fn answer(arch: u32, number: u32, first: u64) -> &'static str {
        let program = program();
        let (mut at, mut word) = (0, 0u32);
        loop {
            let code = u16::from_ne_bytes([program[8 * at], program[8 * at + 1]]);
            let (jt, jf) = (usize::from(program[8 * at + 2]), usize::from(program[8 * at + 3]));
            let k = u32::from_ne_bytes(program[8 * at + 4..8 * at + 8].try_into().unwrap());
            at += 1;
            match (code, k) {
                (0x20, 0) => word = number, // BPF_LD | BPF_W | BPF_ABS
                (0x20, 4) => word = arch,
                (0x20, 16) => word = u32::try_from(first & 0xffff_ffff).unwrap(),
                (0x15, _) => at += if word == k { jt } else { jf }, // BPF_JMP | BPF_JEQ
                (0x35, _) => at += if word >= k { jt } else { jf }, // BPF_JMP | BPF_JGE
                (0x06, 0x7fff_0000) => return "allow",
                (0x06, 0x0005_0001) => return "EPERM",
                (0x06, 0x8000_0000) => return "kill the process",
                other => panic!("instruction {} is {other:x?}", at - 1),
            }
        }
    }

    /// i386, 32-bit ARM, the 64-bit machine that this is not, none.
    const FOREIGN_ARCHES: [u32; 4] = [0x4000_0003, 0x4000_0028, 0xc000_003e ^ 0xc000_00b7 ^ ARCH, 0];

    fn of(call: libc::c_long, first: u64) -> &'static str {
        answer(ARCH, u32::try_from(call).unwrap(), first)
    }

    #[test]
    fn it_is_whole_and_short() {
        assert_eq!(program().len(), (12 + 2 * usize::from(COUNT)) * 8);
    }

    #[test]
    fn what_nobody_calls_is_refused_and_nothing_else() {
        for call in DENIED {
            for first in [0, u64::from(BINARY_FD.cast_unsigned()), u64::MAX] {
                assert_eq!(of(call, first), "EPERM", "{call}");
            }
        }
        let known = |number| number == libc::SYS_execveat || DENIED.contains(&number);
        for number in (0..1000).filter(|number| !known(*number)) {
            assert_eq!(of(number, u64::MAX), "allow", "{number}");
        }
        for call in [libc::SYS_read, libc::SYS_clone3, libc::SYS_setns, libc::SYS_mount, libc::SYS_seccomp] {
            assert_eq!(of(call, 0), "allow", "the launcher and blanks need {call}");
        }
    }

    #[test]
    fn exec_only_of_the_descriptor_of_a_blank() {
        let binary = u64::from(BINARY_FD.cast_unsigned());
        // The kernel takes the low half for the descriptor, whatever is above.
        for first in [binary, 0xdead_beef_0000_0000 | binary] {
            assert_eq!(of(libc::SYS_execveat, first), "allow");
        }
        let at_cwd = 0xffff_ff9c; // AT_FDCWD
        for first in [0, 3, binary - 1, binary + 1, at_cwd, u64::MAX, binary << 32] {
            assert_eq!(of(libc::SYS_execveat, first), "EPERM", "{first:#x}");
        }
        assert_eq!(of(libc::SYS_execve, binary), "EPERM");
    }

    #[test]
    fn other_entries_are_killed() {
        for number in 0..1000 {
            for arch in FOREIGN_ARCHES {
                assert_eq!(answer(arch, number, 0), "kill the process", "{number} by {arch:#x}");
            }
        }
        for number in (0..1000).map(|n| n | 0x4000_0000).chain([0x7fff_ffff, 0x8000_0000, u32::MAX]) {
            assert_eq!(answer(ARCH, number, 0), "kill the process", "{number:#x}");
        }
    }
}
