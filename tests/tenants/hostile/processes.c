// Tries to make processes, to reach others, to become more. Argument: pid of a process of the host.
#include "probe.h"
#include <linux/capability.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <grp.h>
#include <sys/fsuid.h>

static long child(long pid) {
    if (pid == 0) _exit(0);
    return pid;
}
static int host(void) { return atoi(argument(0)); }

TRY(fork_call, "fork", child(syscall(SYS_fork)))
TRY(clone_process, "clone without CLONE_THREAD", child(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)))
TRY(clone_vfork, "clone as vfork", child(syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0)))
TRY(clone_high, "clone with high bits", child(syscall(SYS_clone, 0xffffffff00000000ul | SIGCHLD, 0, 0, 0, 0)))
TRY(clone_user, "clone CLONE_NEWUSER", child(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)))
TRY(clone_all, "clone every namespace", child(syscall(SYS_clone, 0x7e020000 | SIGCHLD, 0, 0, 0, 0)))
TRY(clone_three, "clone3", child(syscall(SYS_clone3, &(unsigned long[11]){[4] = SIGCHLD}, 88)))
TRY(unshare_user, "unshare CLONE_NEWUSER", unshare(CLONE_NEWUSER))
TRY(unshare_files, "unshare CLONE_FILES", unshare(CLONE_FILES))
TRY(setns_any, "setns", setns(0, 0))
TRY(own_table, "close_range CLOSE_RANGE_UNSHARE", syscall(SYS_close_range, 3000, 4000, 2))
TRY(exec_shell, "execve /bin/sh", execve("/bin/sh", (char *[]){"sh", NULL}, NULL))
TRY(ptrace_me, "ptrace TRACEME", ptrace(PTRACE_TRACEME, 0, 0, 0))
TRY(ptrace_host, "ptrace a process of the host", ptrace(PTRACE_SEIZE, host(), 0, 0))
PROBE(vm_read, "process_vm_readv") {
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)main, 1};
    return process_vm_readv(host(), &here, 1, &there, 1, 0);
}
PROBE(vm_write, "process_vm_writev") {
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {(void *)main, 1};
    return process_vm_writev(host(), &here, 1, &there, 1, 0);
}
TRY(pidfd, "pidfd_open a process of the host", syscall(SYS_pidfd_open, host(), 0))
TRY(pidfd_parent, "pidfd_open its own", syscall(SYS_pidfd_open, getpid(), 0))
// Of itself, where it could open itself: a descriptor of its own, and no signal.
TRY(pidfd_get, "pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getpid(), 0), 1, 0))
TRY(pidfd_signal, "pidfd_send_signal", syscall(SYS_pidfd_send_signal, syscall(SYS_pidfd_open, getpid(), 0), 0, NULL, 0))
TRY(pidfd_of_itself, "pidfd_send_signal to itself by PIDFD_SELF", syscall(SYS_pidfd_send_signal, -10000, 0, NULL, 0))
TRY(kcmp_call, "kcmp", syscall(SYS_kcmp, getpid(), getpid(), 0, 1, 1))
TRY(kill_host, "kill a process of the host", kill(host(), 0))
TRY(tgkill_host, "tgkill a process of the host", syscall(SYS_tgkill, host(), host(), 0))
TRY(kill_group, "kill the process group of the host's process", kill(-host(), 0))
TRY(kill_all, "kill every other process", kill(-1, 0))
TRY(queue, "rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, host(), SIGKILL, NULL))
TRY(priority_of, "getpriority of a process of the host", getpriority(PRIO_PROCESS, host()))
TRY(session_of, "getsid of a process of the host", getsid(host()))
TRY(group_of, "getpgid of a process of the host", getpgid(host()))
TRY(affinity_of, "sched_getaffinity of a process of the host", syscall(SYS_sched_getaffinity, host(), 128, (char[128]){0}))
TRY(limits_of, "prlimit of another process", prlimit(host(), RLIMIT_NOFILE, NULL, &(struct rlimit){0}))
// A group or a session that began outside reads as 0 inside; signals to group 0 would reach it.
TRY(own_group, "its process group began inside", holds(getpgid(0) > 0))
TRY(own_session, "its session began inside", holds(getsid(0) > 0))
TRY(no_parent, "its parent is not visible", holds(getppid() == 0))
TRY(first_pid, "it is alone", holds(getpid() == 1 && kill(2, 0) == -1))
TRY(uid_root, "setuid 0", setuid(0))
TRY(gid_root, "setgid 0", setgid(0))
TRY(resuid, "setresuid 0", setresuid(0, 0, 0))
TRY(fsuid, "setfsuid 0", syscall(SYS_setfsuid, 0))
TRY(groups, "setgroups", setgroups(0, NULL))
TRY(no_groups, "it has no supplementary group", holds(getgroups(0, NULL) <= 1))
TRY(not_root, "it is not root", holds(getuid() != 0 && geteuid() != 0 && getgid() != 0 && getegid() != 0))
PROBE(capabilities, "it has no capability") {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0) return 0;
    return holds(!(data[0].effective | data[0].permitted | data[0].inheritable | data[1].effective |
                   data[1].permitted | data[1].inheritable));
}
PROBE(bounding, "the bounding set is empty") {
    for (int cap = 0; cap < 41; cap++)
        if (prctl(PR_CAPBSET_READ, cap) != 0) return cap;
    return refused(EACCES);
}
PROBE(raise_capability, "capset") {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{~0u, ~0u, 0}, {~0u, ~0u, 0}};
    return syscall(SYS_capset, &header, data);
}
TRY(no_new_privs, "no_new_privs is on", holds(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1))
TRY(dumpable, "it is not dumpable", holds(prctl(PR_GET_DUMPABLE) == 0 || prctl(PR_GET_DUMPABLE) == 2))
TRY(set_dumpable, "PR_SET_DUMPABLE", prctl(PR_SET_DUMPABLE, 1))
TRY(set_ptracer, "PR_SET_PTRACER", prctl(PR_SET_PTRACER, -1))
TRY(set_mm, "PR_SET_MM", prctl(PR_SET_MM, PR_SET_MM_BRK, 0, 0, 0))
TRY(set_seccomp, "PR_SET_SECCOMP", prctl(PR_SET_SECCOMP, 2, NULL))
TRY(seccomp_call, "seccomp", syscall(SYS_seccomp, 1, 0, NULL))
TRY(keep_caps, "PR_SET_KEEPCAPS", prctl(PR_SET_KEEPCAPS, 1))
TRY(securebits, "PR_SET_SECUREBITS", prctl(PR_SET_SECUREBITS, 0))
TRY(ambient, "PR_CAP_AMBIENT_RAISE", prctl(PR_CAP_AMBIENT, 2, 21, 0, 0))
TRY(core_cookie, "PR_SCHED_CORE", prctl(62, 1, 0, 0, 0))
TRY(memory_merge, "PR_SET_MEMORY_MERGE", prctl(67, 1, 0, 0, 0))
TRY(dispatch, "PR_SET_SYSCALL_USER_DISPATCH", prctl(59, 1, 0, 0, 0))
TRY(nice_up, "setpriority -20", setpriority(PRIO_PROCESS, 0, -20))
TRY(nice_user, "setpriority of its user", setpriority(PRIO_USER, 0, 0))
TRY(realtime, "sched_setscheduler FIFO", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){1}))
TRY(setattr, "sched_setattr", syscall(SYS_sched_setattr, 0, (char[48]){48}, 0))
TRY(affinity, "sched_setaffinity", sched_setaffinity(0, 8, (cpu_set_t *)(unsigned long[128]){1}))
TRY(ioprio, "ioprio_set", syscall(SYS_ioprio_set, 1, 0, 1 << 13))
TRY(more_files, "raise RLIMIT_NOFILE", setrlimit(RLIMIT_NOFILE, &(struct rlimit){4096, 4096}))
TRY(more_core, "raise RLIMIT_CORE", setrlimit(RLIMIT_CORE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}))
TRY(no_core, "RLIMIT_CORE 0, which lets the crash handler run", setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}))
TRY(no_core_by_prlimit, "RLIMIT_CORE 0 by prlimit", prlimit(0, RLIMIT_CORE, &(struct rlimit){0, 0}, NULL))
TRY(more_locked, "raise RLIMIT_MEMLOCK", setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}))
TRY(more_queues, "raise RLIMIT_MSGQUEUE", setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}))
TRY(owner, "F_SETOWN to a process of the host", fcntl(0, F_SETOWN, host()))
TRY(hostname, "sethostname", sethostname("x", 1))
TRY(own_name, "the host's name is not told", holds(gethostname((char[64]){0}, 64) == 0))
TRY(aslr, "personality ADDR_NO_RANDOMIZE", syscall(SYS_personality, 0x0040000))
TRY(read_exec, "personality READ_IMPLIES_EXEC", syscall(SYS_personality, 0x0400000))

// Memory that is written and then run.
static long map(int prot) { return (long)mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
TRY(map_wx, "mmap writable and executable", map(PROT_READ | PROT_WRITE | PROT_EXEC))
TRY(map_x, "mmap anonymous executable", map(PROT_READ | PROT_EXEC))
// The device where there is one: a mapping that is not private makes memory of its own.
PROBE(map_zero, "executable memory of /dev/zero") {
    int fd = open("/dev/zero", O_RDWR);
    if (fd < 0) return -1;
    return (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
}
TRY(protect_x, "mprotect executable", mprotect((void *)map(PROT_READ | PROT_WRITE), 4096, PROT_READ | PROT_EXEC))
TRY(protect_key_x, "pkey_mprotect executable", syscall(SYS_pkey_mprotect, map(PROT_READ | PROT_WRITE), 4096, PROT_READ | PROT_EXEC, -1))
TRY(stack_x, "executable stack", mprotect((void *)((unsigned long)__builtin_frame_address(0) & ~4095ul), 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
TRY(code_w, "writable code", mprotect((void *)((unsigned long)main & ~4095ul), 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
// A page of code that nothing else needs.
__asm__(".text\n.balign 4096\nspare_code: ret\n.balign 4096\n");
extern char spare_code[];
PROBE(code_w_then_x, "code made writable, then executable again") {
    if (mprotect(spare_code, 4096, PROT_READ | PROT_WRITE) < 0) return -1;
    return mprotect(spare_code, 4096, PROT_READ | PROT_EXEC);
}
