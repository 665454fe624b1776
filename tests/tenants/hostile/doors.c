// Knocks at every door of the kernel that a server never uses.
#include "probe.h"
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/timex.h>
#include <sys/uio.h>

#define CALL(id, ...) TRY(call_##id, #id, syscall(SYS_##id, ##__VA_ARGS__))

static char zero[4096];

TRY(uring, "io_uring_setup", syscall(SYS_io_uring_setup, 8, zero))
CALL(io_uring_enter, 0, 0, 0, 0, 0, 0)
CALL(io_uring_register, 0, 0, 0, 0)
CALL(io_setup, 8, zero)
CALL(bpf, 0, zero, 64)
CALL(perf_event_open, zero, 0, -1, -1, 0)
CALL(userfaultfd, 1)
CALL(add_key, "user", "x", "x", 1, KEY_SPEC_PROCESS_KEYRING)
CALL(request_key, "user", "x", NULL, 0)
CALL(keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0)
CALL(mount, "none", "/tmp", "tmpfs", 0, NULL)
CALL(umount2, "/tmp", 2)
CALL(pivot_root, "/tmp", "/tmp")
CALL(chroot, "/tmp")
CALL(open_tree, AT_FDCWD, "/", 1)
CALL(move_mount, 0, "", 0, "", 0)
CALL(fsopen, "tmpfs", 0)
CALL(fspick, AT_FDCWD, "/", 0)
CALL(fsconfig, 0, 0, 0, 0, 0)
CALL(fsmount, 0, 0, 0)
CALL(mount_setattr, AT_FDCWD, "/", 0, zero, 32)
TRY(statmount, "statmount", syscall(457, zero, zero, 64, 0))
TRY(listmount, "listmount", syscall(458, zero, zero, 64, 0))
CALL(setns, 0, 0)
CALL(unshare, 0x10000000)
CALL(open_by_handle_at, AT_FDCWD, zero, 0)
CALL(name_to_handle_at, AT_FDCWD, "/", zero, zero, 0)
CALL(memfd_secret, 0)
CALL(memfd_create, "x", 0)
CALL(kexec_load, 0, 0, 0, 0)
CALL(kexec_file_load, 0, 0, 0, 0, 0)
CALL(init_module, zero, 0, "")
CALL(finit_module, 0, "", 0)
CALL(delete_module, "x", 0)
CALL(reboot, 0xfee1dead, 672274793, 0x89abcdef, 0)
CALL(swapon, "/tmp/x", 0)
CALL(swapoff, "/tmp/x")
CALL(acct, NULL)
CALL(quotactl, 0, NULL, 0, NULL)
CALL(settimeofday, zero, NULL)
CALL(clock_settime, 0, zero)
CALL(clock_adjtime, 0, zero)
TRY(adjust_time, "adjtimex", adjtimex(&(struct timex){.modes = ADJ_TICK, .tick = 10000}))
CALL(iopl, 3)
CALL(ioperm, 0, 1, 1)
CALL(modify_ldt, 1, zero, 16)
CALL(fanotify_init, 0, 0)
CALL(inotify_init1, 0)
CALL(vhangup)
CALL(syslog, 3, zero, 64)
CALL(sync)
CALL(syncfs, 1)
CALL(shmget, IPC_PRIVATE, 4096, 0600 | IPC_CREAT)
CALL(semget, IPC_PRIVATE, 1, 0600 | IPC_CREAT)
CALL(msgget, IPC_PRIVATE, 0600 | IPC_CREAT)
CALL(mq_open, "x", O_CREAT | O_RDWR, 0600, NULL)
CALL(lookup_dcookie, 0, zero, 64)
CALL(migrate_pages, 0, 0, 0, 0)
CALL(move_pages, 0, 0, 0, 0, 0, 0)
CALL(mbind, 0, 0, 0, 0, 0, 0)
CALL(remap_file_pages, 0, 0, 0, 0, 0)
CALL(process_madvise, 0, 0, 0, 0, 0)
CALL(vmsplice, 1, zero, 1, 0)
CALL(splice, 0, NULL, 1, NULL, 1, 0)
CALL(mincore, zero, 4096, zero)
CALL(landlock_create_ruleset, NULL, 0, 1)
CALL(ustat, 0, zero)
CALL(sysfs, 1, "tmpfs")
TRY(merge, "madvise MADV_MERGEABLE", syscall(SYS_madvise, (unsigned long)zero & ~4095ul, 4096, 12))
TRY(poison, "madvise MADV_HWPOISON", syscall(SYS_madvise, (unsigned long)zero & ~4095ul, 4096, 100))
TRY(inject, "TIOCSTI", syscall(SYS_ioctl, 1, 0x5412ul, "x"))
TRY(inject_high, "TIOCSTI with high bits", syscall(SYS_ioctl, 1, 0x100005412ul, "x"))
TRY(inject_top, "TIOCSTI with the top bit", syscall(SYS_ioctl, 1, 0xffffffff00005412ul, "x"))
TRY(linux_tty, "TIOCLINUX", syscall(SYS_ioctl, 1, 0x541cul, "x"))
TRY(control_tty, "TIOCSCTTY", syscall(SYS_ioctl, 1, 0x540eul, 1))
TRY(namespace_parent, "NS_GET_PARENT", syscall(SYS_ioctl, 0, 0xb702ul, 0))
TRY(clone_file, "FICLONE", syscall(SYS_ioctl, 1, 0x40049409ul, 0))
TRY(lease, "F_SETLEASE", fcntl(0, F_SETLEASE, F_RDLCK))
TRY(notify, "F_NOTIFY", fcntl(0, F_NOTIFY, 1))
TRY(cpuid_off, "ARCH_SET_CPUID", syscall(SYS_arch_prctl, 0x1012, 0))
TRY(pipe_size, "F_SETPIPE_SZ on its output", fcntl(1, F_SETPIPE_SZ, 1 << 20))
TRY(evict, "POSIX_FADV_DONTNEED", syscall(SYS_fadvise64, 0, 0, 0, 4))
TRY(barrier, "global membarrier", syscall(SYS_membarrier, 2, 0, 0))
PROBE(residency, "RWF_NOWAIT") {
    struct iovec part = {zero, 1};
    return preadv2(0, &part, 1, 0, RWF_NOWAIT);
}
