// Knocks at every door of the kernel that a server never uses, with arguments that succeed where the
// call asks for no privilege and the kernel has it. (That no number is forgotten, and that it is the
// filter which refuses, is syscalls.c's: bad arguments, which the kernel would refuse in other words.)
#include "probe.h"
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <sys/uio.h>

#define CALL(id, ...) TRY(call_##id, #id, syscall(SYS_##id, ##__VA_ARGS__))

static char zero[4096];

TRY(uring, "io_uring_setup", syscall(SYS_io_uring_setup, 8, zero))
// On a ring of its own, where it could make one.
PROBE(uring_enter, "io_uring_enter") {
    int ring = syscall(SYS_io_uring_setup, 8, &(struct io_uring_params){0});
    return syscall(SYS_io_uring_enter, ring, 0, 0, 0, 0, 0);
}
PROBE(uring_register, "io_uring_register") {
    int ring = syscall(SYS_io_uring_setup, 8, &(struct io_uring_params){0});
    return syscall(SYS_io_uring_register, ring, IORING_REGISTER_EVENTFD, &(int){eventfd(0, 0)}, 1);
}
CALL(io_setup, 8, zero)
CALL(bpf, 0, zero, 64)
// Of its own process, in user space only: what is open to everybody.
TRY(perf, "perf_event_open", syscall(SYS_perf_event_open, &(struct perf_event_attr){.type = PERF_TYPE_SOFTWARE, .size = sizeof(struct perf_event_attr), .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1, .exclude_hv = 1}, 0, -1, -1, 0))
CALL(userfaultfd, 1)
CALL(add_key, "user", "x", "x", 1, KEY_SPEC_PROCESS_KEYRING)
CALL(request_key, "user", "x", NULL, 0)
CALL(keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0)
CALL(mount, "none", "/tmp", "tmpfs", 0, NULL)
CALL(umount2, "/tmp", 2)
CALL(pivot_root, "/tmp", "/tmp")
CALL(chroot, "/tmp")
CALL(open_tree, AT_FDCWD, "/", 1)
TRY(open_tree_plain, "open_tree without a copy", syscall(SYS_open_tree, AT_FDCWD, "/", 0))
CALL(move_mount, 0, "", 0, "", 0)
CALL(fsopen, "tmpfs", 0)
CALL(fspick, AT_FDCWD, "/", 0)
CALL(fsconfig, 0, 0, 0, 0, 0)
CALL(fsmount, 0, 0, 0)
CALL(mount_setattr, AT_FDCWD, "/", 0, zero, 32)
struct mount_request { unsigned size, spare; unsigned long id, parameter; };
PROBE(statmount, "statmount") {
    struct statx about;
    if (statx(AT_FDCWD, "/", 0, 0x4000 /* STATX_MNT_ID_UNIQUE */, &about) < 0) return -1;
    return syscall(457, &(struct mount_request){24, 0, about.stx_mnt_id, 1}, (char[512]){0}, 512, 0);
}
TRY(listmount, "listmount", syscall(458, &(struct mount_request){24, 0, -1ul, 0}, (unsigned long[8]){0}, 8, 0))
CALL(setns, 0, 0)
CALL(unshare, 0x10000000)
CALL(open_by_handle_at, AT_FDCWD, zero, 0)
CALL(name_to_handle_at, AT_FDCWD, "/tmp", (unsigned[34]){128}, &(int){0}, 0)
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
CALL(fanotify_init, 0x200 /* FAN_REPORT_FID: open to everybody */, 0)
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
static char page[4096] __attribute__((aligned(4096)));
CALL(migrate_pages, 0, 64, &(unsigned long){1}, &(unsigned long){1})
CALL(move_pages, 0, 1, &(void *){page}, NULL, &(int){0}, 0)
CALL(mbind, page, sizeof page, 0, NULL, 0, 0)
PROBE(remap_pages, "remap_file_pages") {
    void *shared = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return syscall(SYS_remap_file_pages, shared, 4096, 0, 1, 0);
}
// -10000 is the calling process itself (Linux 6.14); where that is no word, its pidfd.
PROBE(advise_itself, "process_madvise") {
    struct iovec part = {page, sizeof page};
    long result = syscall(SYS_process_madvise, -10000, &part, 1, MADV_COLD, 0);
    if (result >= 0 || errno != EBADF) return result;
    return syscall(SYS_process_madvise, syscall(SYS_pidfd_open, getpid(), 0), &part, 1, MADV_COLD, 0);
}
// Bytes from one pipe to another, which every kernel does for everybody.
static long between_pipes(long number, unsigned flags) {
    int from[2], to[2];
    if (pipe2(from, O_NONBLOCK) < 0 || pipe2(to, O_NONBLOCK) < 0 || write(from[1], "x", 1) != 1) _exit(96);
    if (number == SYS_tee) return syscall(SYS_tee, from[0], to[1], 1, flags);
    if (number == SYS_vmsplice) return syscall(SYS_vmsplice, to[1], &(struct iovec){page, 1}, 1, flags);
    return syscall(number, from[0], NULL, to[1], NULL, 1, flags);
}
TRY(splice_pipes, "splice between pipes", between_pipes(SYS_splice, 0))
TRY(tee_pipes, "tee between pipes", between_pipes(SYS_tee, 0))
TRY(vmsplice_pipe, "vmsplice into a pipe", between_pipes(SYS_vmsplice, 0))
CALL(mincore, page, sizeof page, (unsigned char[1]){0})
CALL(landlock_create_ruleset, NULL, 0, 1)
PROBE(ustat_root, "ustat") {
    struct stat about;
    return stat("/", &about) < 0 ? -1 : syscall(SYS_ustat, about.st_dev, zero);
}
CALL(sysfs, 1, "tmpfs")
TRY(merge, "madvise MADV_MERGEABLE", syscall(SYS_madvise, (unsigned long)zero & ~4095ul, 4096, 12))
TRY(poison, "madvise MADV_HWPOISON", syscall(SYS_madvise, (unsigned long)zero & ~4095ul, 4096, 100))
// Terminals are terminal.c's.
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
