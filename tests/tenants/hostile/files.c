// Tries to reach files that are not its own.
#include "probe.h"
#include <dirent.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>

static long reads(const char *path) { return open(path, O_RDONLY | O_CLOEXEC); }
// A Worker may be given an /etc/passwd of its own; the host's names the account in argument 1.
static long tells_of_host(int fd) {
    static char text[65536];
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    return strstr(text, argument(1)) ? 0 : refused(ENOENT);
}
static long through_link(const char *to) {
    unlink("/tmp/link");
    if (symlink(to, "/tmp/link") < 0) return 0;
    return open("/tmp/link", O_RDONLY);
}
static long below(int dir, const char *path) { return dir < 0 ? -1 : openat(dir, path, O_RDONLY); }

// First, before those behind it open any.
PROBE(descriptors, "no descriptor but 0, 1, 2") {
    for (int fd = 3; fd < 70000; fd++)
        if (fcntl(fd, F_GETFD) != -1) return fd;
    return refused(EACCES);
}
TRY(passwd, "read /etc/passwd", tells_of_host(reads("/etc/passwd")))
TRY(shadow, "read /etc/shadow", reads("/etc/shadow"))
TRY(dots, "read ../../../../etc/passwd", tells_of_host(reads("../../../../../../etc/passwd")))
TRY(root_home, "list /root", reads("/root"))
TRY(home, "list /home", reads("/home"))
TRY(var, "list /var/lib", reads("/var/lib"))
TRY(run, "list /run", reads("/run"))
TRY(sys, "list /sys", reads("/sys"))
TRY(cgroups, "list /sys/fs/cgroup", reads("/sys/fs/cgroup"))
TRY(proc, "list /proc", reads("/proc"))
TRY(proc_exe, "read /proc/self/exe", reads("/proc/self/exe"))
TRY(proc_exe_write, "write /proc/self/exe", open("/proc/self/exe", O_RDWR))
TRY(proc_root, "read /proc/1/root/etc/passwd", tells_of_host(reads("/proc/1/root/etc/passwd")))
TRY(proc_cwd, "read /proc/self/cwd/../etc/passwd", tells_of_host(reads("/proc/self/cwd/../../../etc/passwd")))
TRY(proc_fd, "list /proc/self/fd", reads("/proc/self/fd"))
TRY(proc_sys, "write /proc/sys/kernel/core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY))
TRY(proc_mem, "write its own memory by /proc/self/mem", open("/proc/self/mem", O_RDWR))
TRY(proc_oom, "write /proc/self/oom_score_adj", open("/proc/self/oom_score_adj", O_WRONLY))
TRY(proc_setgroups, "write /proc/self/uid_map", open("/proc/self/uid_map", O_WRONLY))
TRY(proc_exec, "execveat /proc/self/fd/1 by path", syscall(SYS_execveat, 1023, "/proc/self/fd/1", (char *[]){NULL}, (char *[]){NULL}, AT_EMPTY_PATH))
TRY(proc_config, "read /proc/config.gz", reads("/proc/config.gz"))
TRY(proc_kallsyms, "read /proc/kallsyms", reads("/proc/kallsyms"))
TRY(proc_kcore, "read /proc/kcore", reads("/proc/kcore"))
TRY(proc_keys, "read /proc/keys", reads("/proc/keys"))
TRY(proc_mounts, "read /proc/mounts of the host", tells_of_host(reads("/proc/mounts")))
TRY(proc_cmdline, "read /proc/cmdline", reads("/proc/cmdline"))
TRY(proc_version, "read /proc/version", reads("/proc/version"))
TRY(proc_two, "read /proc/2", reads("/proc/2"))
TRY(sysrq, "write /proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY))
TRY(harness_file, "read a file of the host by its absolute path", reads(argument(0)))
TRY(link_absolute, "symlink to /etc/passwd", tells_of_host(through_link("/etc/passwd")))
TRY(link_dots, "symlink to ../../etc/passwd", tells_of_host(through_link("../../../etc/passwd")))
TRY(link_proc, "symlink to /proc/1/root", through_link("/proc/1/root"))
TRY(root_write, "open / for writing", open("/", O_RDWR))
TRY(root_tmpfile, "O_TMPFILE in /", open("/", O_TMPFILE | O_RDWR, 0600))
TRY(root_create, "create /x", open("/x", O_CREAT | O_WRONLY, 0600))
TRY(root_mkdir, "mkdir /x", mkdir("/x", 0700))
TRY(root_symlink, "symlink /x", symlink("/tmp", "/x"))
TRY(root_chmod, "chmod /", chmod("/", 0777))
TRY(root_parent, "open ../etc/passwd of /", tells_of_host(below(open("/", O_PATH | O_DIRECTORY), "../etc/passwd")))
TRY(dev_create, "create /dev/x", open("/dev/x", O_CREAT | O_WRONLY, 0600))
TRY(dev_unlink, "unlink /dev/null", unlink("/dev/null"))
TRY(dev_rename, "rename /dev/null", rename("/dev/null", "/dev/zero"))
TRY(dev_chmod, "chmod /dev/null", chmod("/dev/null", 0600))
TRY(dev_mem, "open /dev/mem", reads("/dev/mem"))
TRY(dev_kmsg, "open /dev/kmsg", reads("/dev/kmsg"))
TRY(dev_kvm, "open /dev/kvm", reads("/dev/kvm"))
TRY(dev_fuse, "open /dev/fuse", reads("/dev/fuse"))
TRY(dev_tun, "open /dev/net/tun", reads("/dev/net/tun"))
TRY(dev_tty, "open /dev/tty", reads("/dev/tty"))
TRY(dev_ptmx, "open /dev/ptmx", reads("/dev/ptmx"))
TRY(dev_console, "open /dev/console", reads("/dev/console"))
TRY(dev_vda, "open /dev/vda", reads("/dev/vda"))
TRY(dev_shm, "create in /dev/shm", open("/dev/shm/x", O_CREAT | O_RDWR, 0600))
TRY(block_node, "mknod a block device", mknod("/tmp/disk", S_IFBLK | 0600, makedev(8, 0)))
TRY(char_node, "mknod /dev/mem", mknod("/tmp/mem", S_IFCHR | 0600, makedev(1, 1)))
TRY(whiteout, "mknod a whiteout", mknod("/tmp/white", S_IFCHR | 0600, 0))
TRY(hardlink, "hard link of /dev/null", link("/dev/null", "/tmp/null"))
TRY(chown_root, "chown to root", chown("/tmp", 0, 0))
TRY(handle, "name_to_handle_at", syscall(SYS_name_to_handle_at, AT_FDCWD, "/", NULL, NULL, 0))
TRY(by_handle, "open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, "\10\0\0\0\1\0\0\0\2\0\0\0", O_RDONLY))

PROBE(null_is_null, "/dev/null is the real one") {
    struct stat st;
    return holds(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
}
PROBE(root_is_top, "/.. is /") {
    struct stat a, b;
    return holds(stat("/", &a) == 0 && stat("/..", &b) == 0 && a.st_ino == b.st_ino && a.st_dev == b.st_dev);
}
PROBE(cwd_is_inside, "the working directory is inside the root") {
    char path[PATH_MAX];
    return holds(getcwd(path, sizeof path) && path[0] == '/');
}
PROBE(names_in_root, "nothing else in /") {
    static const char *known[] = {".", "..", "dev", "tmp", "app", "proc", "lib", "lib64", "lib32", "usr", "etc", "bin", "sbin"};
    DIR *dir = opendir("/");
    if (!dir) return -1;
    for (struct dirent *entry; (entry = readdir(dir));) {
        int found = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) found |= !strcmp(known[i], entry->d_name);
        if (!found) return 0;
    }
    closedir(dir);
    return refused(EACCES);
}
PROBE(names_in_dev, "nothing else in /dev") {
    static const char *known[] = {".", "..", "null", "zero", "full", "random", "urandom"};
    DIR *dir = opendir("/dev");
    if (!dir) return -1;
    for (struct dirent *entry; (entry = readdir(dir));) {
        int found = 0;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) found |= !strcmp(known[i], entry->d_name);
        if (!found) return 0;
    }
    closedir(dir);
    return refused(EACCES);
}
PROBE(standard_input, "standard input is no socket, folder or file of the host") {
    struct stat st;
    return holds(fstat(0, &st) == -1 || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)));
}
PROBE(standard_output, "standard output is a pipe") {
    struct stat st;
    return holds(fstat(1, &st) == 0 && S_ISFIFO(st.st_mode) && fstat(2, &st) == 0 && S_ISFIFO(st.st_mode));
}
PROBE(output_is_write_only, "standard output can't be read") {
    char byte;
    fcntl(1, F_SETFL, O_NONBLOCK);
    long got = read(1, &byte, 1);
    int error = errno;
    fcntl(1, F_SETFL, 0);
    return got < 0 ? refused(error) : got;
}

// Code that is not its own binary's.
static int program_in_tmp(void) {
    static const char script[] = "#!/bin/sh\n";
    int fd = open("/tmp/program", O_CREAT | O_TRUNC | O_WRONLY, 0755);
    if (fd < 0 || write(fd, script, sizeof script - 1) < 0 || fchmod(fd, 0755) < 0) _exit(98);
    close(fd);
    return open("/tmp/program", O_RDONLY);
}
static char *const none[] = {NULL};
TRY(exec_tmp, "execve a program in /tmp", (program_in_tmp(), execve("/tmp/program", none, none)))
TRY(exec_sh, "execve /bin/sh", execve("/bin/sh", none, none))
TRY(exec_fd, "execveat a descriptor", syscall(SYS_execveat, program_in_tmp(), "", none, none, AT_EMPTY_PATH))
// An absolute path makes the kernel ignore the descriptor number that the filter looks at.
TRY(exec_absolute, "execveat 1023 with an absolute path", (program_in_tmp(), syscall(SYS_execveat, 1023, "/tmp/program", none, none, AT_EMPTY_PATH)))
TRY(exec_dev, "execveat 1023 with /dev/null", syscall(SYS_execveat, 1023, "/dev/null", none, none, AT_EMPTY_PATH))
TRY(exec_app, "execveat 1023 with /app", syscall(SYS_execveat, 1023, "/app/program", none, none, AT_EMPTY_PATH))
TRY(dup_to_1023, "a descriptor numbered 1023", dup2(0, 1023))
TRY(fcntl_to_1023, "fcntl to descriptor 1023", fcntl(0, F_DUPFD, 1023))
TRY(memfd, "memfd_create", syscall(SYS_memfd_create, "x", 0))
TRY(map_tmp_exec, "map a file of /tmp executable", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, program_in_tmp(), 0))
TRY(map_tmp_exec_shared, "map a file of /tmp executable, shared", mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, program_in_tmp(), 0))
