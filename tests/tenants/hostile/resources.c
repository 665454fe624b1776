// Takes all it can get of one thing, named by argv[1], and says how much it was.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void say(const char *what, long count) {
    char line[128];
    const char *name = strerrorname_np(errno);
    snprintf(line, sizeof line, "%s %ld %s\n", what, count, name ? name : "0");
    if (write(1, line, strlen(line)) < 0) _exit(99);
}

static void *sleeper(void *nothing) {
    for (;;) pause();
    return nothing;
}
static void *spinner(void *nothing) {
    for (;;) __asm__ volatile("");
    return nothing;
}

static void memory(void) {
    for (long mib = 1;; mib++) {
        char *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED) {
            say("memory", mib);
            return;
        }
        memset(block, 1, 1 << 20);
    }
}
static void descriptors(void) {
    long count = 0;
    while (dup(1) >= 0) count++;
    say("descriptors", count);
}
static void threads(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 16384);
    pthread_t thread;
    long count = 0;
    while ((errno = pthread_create(&thread, &attributes, sleeper, NULL)) == 0) count++;
    say("threads", count);
}
static void forks(void) {
    long count = 0;
    for (;;) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) {
            // Each child goes on forking, as a bomb does; only the first process tells.
            while (fork() >= 0) {}
            for (;;) pause();
        }
        count++;
    }
    say("forks", count);
    // Alive until killed: nothing of the bomb may outlive it.
    for (;;) pause();
}
// Locks on every other byte, so that no two merge. Says how many of them the kernel holds, as seen
// by another opening of the file.
static void locks(void) {
    int fd = open("/tmp/locked", O_CREAT | O_RDWR, 0600), other = open("/tmp/locked", O_RDWR);
    if (fd < 0 || other < 0) return;
    long held = 0;
    for (long at = 0; at < 1000; at++) {
        struct flock lock = {.l_type = F_WRLCK, .l_start = at * 2, .l_len = 1};
        if (fcntl(fd, F_SETLK, &lock) < 0 && fcntl(fd, F_OFD_SETLK, &lock) < 0) continue;
        struct flock seen = {.l_type = F_WRLCK, .l_start = at * 2, .l_len = 1};
        if (fcntl(other, F_OFD_GETLK, &seen) < 0 || seen.l_type != F_UNLCK) held++;
    }
    errno = 0;
    say("locks", held);
}
// Locks of a file that everybody has open. Says how many of them the kernel holds.
static void flocks(void) {
    long held = 0;
    for (long at = 0; at < 100; at++) {
        int fd = open("/dev/null", O_RDWR), other = open("/dev/null", O_RDWR);
        if (fd < 0 || other < 0 || flock(fd, LOCK_EX) < 0) return;
        if (flock(other, LOCK_EX | LOCK_NB) < 0) held++;
        close(fd);
        close(other);
    }
    errno = 0;
    say("flocks", held);
}
// Reads a byte of a file where argv[3] says, whose page is charged to whom reads it first.
static const char *file_path = "", *file_at = "0";
static void page(void) {
    char byte;
    int fd = open(file_path, O_RDONLY);
    say("page", pread(fd, &byte, 1, atol(file_at)));
}
// Page tables alone: one byte read of every 2 MiB maps the page of zeros, which is nobody's.
static void page_tables(void) {
    long count = 0;
    for (;; count++) {
        char *block = mmap(NULL, 1 << 30, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (block == MAP_FAILED) break;
        madvise(block, 1 << 30, MADV_NOHUGEPAGE);
        for (long at = 0; at < 1 << 30; at += 1 << 21) (void)*(volatile char *)(block + at);
    }
    say("page_tables", count);
}
// Descriptors that are in no table: sent, and never received.
static void in_flight(void) {
    long count = 0;
    for (int pair[2]; socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) == 0;) {
        for (;; count += 200) {
            char byte = 0;
            struct iovec part = {&byte, 1};
            union {
                struct cmsghdr header;
                char space[CMSG_SPACE(200 * sizeof(int))];
            } control = {0};
            struct msghdr all = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
            control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(200 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
            for (int i = 0; i < 200; i++) ((int *)CMSG_DATA(&control.header))[i] = pair[1];
            if (sendmsg(pair[0], &all, 0) < 0) break;
        }
        if (errno == ETOOMANYREFS) break;
    }
    say("in_flight", count);
}
// Watches: every descriptor in every epoll.
static void watches(void) {
    long count = 0;
    int fds[500], epolls[500], have = 0;
    while (have < 500 && (fds[have] = eventfd(0, 0)) >= 0) have++;
    for (int e = 0; e < 500 && (epolls[e] = epoll_create1(0)) >= 0; e++)
        for (int i = 0; i < have; i++, count++) {
            struct epoll_event event = {.events = EPOLLIN};
            if (epoll_ctl(epolls[e], EPOLL_CTL_ADD, fds[i], &event) < 0) goto out;
        }
    errno = EMFILE;
out:
    say("watches", count);
}
static void leave(void) {
    // Children, and theirs, in sessions of their own, deaf to what asks them to end.
    for (int i = 0; i < 3; i++)
        if (fork() == 0) {
            setsid();
            signal(SIGTERM, SIG_IGN);
            signal(SIGHUP, SIG_IGN);
            (void)!fork();
            for (;;) pause();
        }
}
static void tmp_bytes(void) {
    static char block[65536];
    int fd = open("/tmp/fill", O_CREAT | O_WRONLY, 0600);
    long total = 0;
    for (ssize_t n; (n = write(fd, block, sizeof block)) > 0;) total += n;
    say("tmp_bytes", total);
}
static void tmp_files(void) {
    char path[64];
    long count = 0;
    for (;; count++) {
        snprintf(path, sizeof path, "/tmp/%ld", count);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) break;
        close(fd);
    }
    say("tmp_files", count);
}
static void deep(void) {
    long count = 0;
    while (mkdir("d", 0700) == 0 && chdir("d") == 0) count++;
    say("deep", count);
}
static void timers(void) {
    long count = 0;
    timer_t timer;
    while (timer_create(CLOCK_MONOTONIC, NULL, &timer) == 0) count++;
    say("timers", count);
}
static void pipes(void) {
    static char block[65536];
    long total = 0;
    for (int ends[2]; pipe2(ends, O_NONBLOCK) == 0;) {
        for (ssize_t n; (n = write(ends[1], block, sizeof block)) > 0;) total += n;
    }
    say("pipes", total);
}
// Kernel memory in socket buffers.
static long fill(int from) {
    static char block[65536];
    long total = 0;
    fcntl(from, F_SETFL, O_NONBLOCK);
    for (ssize_t n; (n = send(from, block, sizeof block, MSG_NOSIGNAL)) > 0;) total += n;
    return total;
}
static void unix_buffers(void) {
    long total = 0;
    int big = 1 << 30;
    for (int pair[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0;) {
        for (int i = 0; i < 2; i++) {
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
            total += fill(pair[i]);
        }
    }
    say("unix_buffers", total);
}
static void tcp_buffers(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(8080)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0), big = 1 << 30;
    if (bind(listener, (void *)&at, sizeof at) < 0 || listen(listener, 16) < 0) {
        say("tcp_buffers", -1);
        return;
    }
    long total = 0;
    for (;;) {
        int ends[2] = {socket(AF_INET, SOCK_STREAM, 0), -1};
        if (ends[0] < 0 || connect(ends[0], (void *)&at, sizeof at) < 0) break;
        ends[1] = accept(listener, NULL, NULL);
        if (ends[1] < 0) break;
        for (int i = 0; i < 2; i++) {
            setsockopt(ends[i], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
            setsockopt(ends[!i], SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
            total += fill(ends[i]);
        }
    }
    say("tcp_buffers", total);
}
static void locked(void) {
    long count = 0;
    for (;; count++) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED || mlock(page, 4096) < 0) break;
    }
    say("locked", count);
}
static void mappings(void) {
    // Alternating protections, so that no two merge.
    long count = 0;
    for (;; count++) {
        int prot = count % 2 ? PROT_READ : PROT_NONE;
        if (mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) break;
    }
    say("mappings", count);
}
static void spin(void) {
    pthread_t thread;
    for (int i = 0; i < 8; i++) pthread_create(&thread, NULL, spinner, NULL);
    say("spinning", 9);
    spinner(NULL);
}
static void logs(void) {
    static char block[65536];
    memset(block, 'x', sizeof block);
    for (;;)
        if (write(2, block, sizeof block) < 0) break;
}
static long names_in(const char *path) {
    DIR *folder = opendir(path);
    long count = -2;
    while (folder && readdir(folder)) count++;
    return count;
}
// A child crashes where it could write a file, having asked for all the room there is. Says the signal,
// whether the kernel says that it wrote one, and how many files are there.
static void core(void) {
    if (chdir("/tmp") < 0) _exit(98);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
        setrlimit(RLIMIT_CORE, &all);
        signal(SIGSEGV, SIG_DFL);
        *(volatile char *)8 = 1;
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) _exit(97);
    char line[64];
    snprintf(line, sizeof line, "signal %d core %d files %ld\n", WTERMSIG(status), WCOREDUMP(status) != 0, names_in("/tmp"));
    if (write(1, line, strlen(line)) < 0) _exit(99);
}
// As the first of its processes it can't stop itself; a child can.
static void stop(void) {
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        _exit(1);
    }
    int status = 0;
    errno = 0;
    if (waitpid(child, &status, WUNTRACED) != child) say("no child", 0);
    else say(WIFSTOPPED(status) ? "stopped" : "not stopped", WSTOPSIG(status));
    for (;;) pause();
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } all[] = {{"memory", memory},   {"descriptors", descriptors}, {"threads", threads},
               {"forks", forks},     {"tmp_bytes", tmp_bytes},     {"tmp_files", tmp_files},
               {"deep", deep},       {"timers", timers},           {"pipes", pipes},
               {"unix_buffers", unix_buffers}, {"tcp_buffers", tcp_buffers}, {"locked", locked},
               {"mappings", mappings}, {"leave", leave}, {"locks", locks}, {"flocks", flocks}, {"page", page}, {"page_tables", page_tables}, {"in_flight", in_flight}, {"watches", watches}, {"spin", spin}, {"logs", logs}, {"core", core}, {"stop", stop}};
    if (argc > 1 && !strcmp(argv[1], "deep") && chdir("/tmp") < 0) return 3;
    if (argc > 3) file_path = argv[2], file_at = argv[3];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (argc > 1 && !strcmp(argv[1], all[i].name)) {
            all[i].run();
            return 0;
        }
    return 2;
}
