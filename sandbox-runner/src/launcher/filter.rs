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
    #[test]
    fn it_is_whole_and_short() {
        assert_eq!(super::program().len(), (12 + 2 * usize::from(super::COUNT)) * 8);
    }
}
