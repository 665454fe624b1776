// Makes system calls by chance: numbers, flags, descriptors of every kind, pointers to structures that
// are nearly right, to nothing, past the edge of a page and into the kernel. The same for the same seed
// (as far as threads allow).
// argv: seed, milliseconds, then the numbers to leave out. Says at the end how many calls it made.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { THREADS = 6, PAGES = 64, SLACK = 16, PAGE = 4096, NUMBERS = 480 };

static unsigned char *arena;
static unsigned char out_of_bounds[NUMBERS];
static atomic_long calls, worked;
static atomic_int over;
static atomic_int ids[THREADS];

struct dice {
    uint64_t state;
};
static uint64_t next(struct dice *dice) {
    dice->state ^= dice->state << 13;
    dice->state ^= dice->state >> 7;
    dice->state ^= dice->state << 17;
    return dice->state * 0x2545f4914f6cdd1dull;
}
static uint64_t below(struct dice *dice, uint64_t end) { return (next(dice) >> 11) % end; }

static int some_descriptor(struct dice *dice) {
    switch (below(dice, 12)) {
    case 0: return -1;
    case 1: return AT_FDCWD;
    case 2: return 0;
    case 3: return (int)below(dice, 1100);
    // Never its output: the test reads that.
    default: return 3 + (int)below(dice, 40);
    }
}

static const char *const paths[] = {
    "/", ".", "..", "/tmp", "/tmp/a", "/tmp/b", "/tmp/d", "/tmp/d/e", "/tmp/link", "/dev/null", "/dev/zero",
    "/dev/full", "/dev/urandom", "/dev/x", "/etc/passwd", "/proc/self/mem", "/proc/self/exe", "/proc/1/root",
    "/proc/self/fd/3", "/proc/self/ns/net", "/proc/sys/kernel/core_pattern", "/sys", "/app", "/lib", "",
    "/tmp/d/../../tmp/d/./e", "//tmp//a", "/../../../etc/shadow", "/tmp/\xff\xfe",
};

static void *some_pointer(struct dice *dice);

// A structure of some kind, at a place of its own.
static void *some_structure(struct dice *dice) {
    unsigned char *at = arena + below(dice, PAGES) * PAGE + below(dice, 8) * 512;
    switch (below(dice, 12)) {
    case 0: {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(below(dice, 3) ? 8080 : 3128)};
        to.sin_addr.s_addr = below(dice, 4) ? htonl(INADDR_LOOPBACK) : (uint32_t)next(dice);
        memcpy(at, &to, sizeof to);
        break;
    }
    case 1: {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strcpy(to.sun_path + below(dice, 2), paths[below(dice, sizeof paths / sizeof *paths)]);
        memcpy(at, &to, sizeof to);
        break;
    }
    case 2: {
        struct timespec time[2] = {{below(dice, 2), below(dice, 1000000)}, {0, below(dice, 2000000000)}};
        memcpy(at, time, sizeof time);
        break;
    }
    case 3: {
        struct iovec parts[4];
        for (int i = 0; i < 4; i++) parts[i] = (struct iovec){arena + below(dice, PAGES * PAGE), below(dice, 9000)};
        memcpy(at, parts, sizeof parts);
        break;
    }
    case 4: {
        struct msghdr message = {.msg_iov = (void *)(arena + below(dice, PAGES) * PAGE), .msg_iovlen = below(dice, 5)};
        struct cmsghdr *control = (void *)(at + 128);
        *control = (struct cmsghdr){.cmsg_len = CMSG_LEN(4 * below(dice, 4)), .cmsg_level = SOL_SOCKET, .cmsg_type = 1 + below(dice, 3)};
        for (int i = 0; i < 4; i++) ((int *)CMSG_DATA(control))[i] = some_descriptor(dice);
        message.msg_control = control;
        message.msg_controllen = below(dice, 64);
        memcpy(at, &message, sizeof message);
        break;
    }
    case 5: {
        struct epoll_event event = {.events = (uint32_t)next(dice), .data.u64 = next(dice)};
        memcpy(at, &event, sizeof event);
        break;
    }
    case 6:
    case 7:
    case 8: strcpy((char *)at, paths[below(dice, sizeof paths / sizeof *paths)]); break;
    case 9: {
        uint64_t signals = next(dice) & ~(1ull << (SIGUSR1 - 1));
        memcpy(at, &signals, sizeof signals);
        break;
    }
    case 10: {
        uint32_t number = (uint32_t)below(dice, 256);
        memcpy(at, &number, sizeof number);
        break;
    }
    default:
        for (int i = 0; i < 64; i++) at[i] = (unsigned char)next(dice);
    }
    return at;
}

static void *some_pointer(struct dice *dice) {
    switch (below(dice, 16)) {
    case 0: return NULL;
    case 1: return (void *)-1l;
    case 2: return (void *)(0xffff888000000000ull + below(dice, 1 << 30)); // where the kernel maps memory
    case 3: return (void *)(0xffffffff81000000ull + below(dice, 1 << 24)); // its code
    case 4: return (void *)0x8000000000000000ull;
    case 5: return arena + PAGES * PAGE - below(dice, 16); // runs over the edge
    default: return some_structure(dice);
    }
}

static long some_number(struct dice *dice) {
    static const long numbers[] = {0, 1, 2, 3, 7, 8, 16, 255, 256, 1024, 4095, 4096, 4097, 65535, 65536, -1, -2, -100,
        INT32_MAX, INT32_MIN, UINT32_MAX, INT64_MAX, INT64_MIN, 0x100000000, 0x1000, 0x80000, 0x800, 0x4000, 0x5421, 0x541b};
    switch (below(dice, 4)) {
    case 0: return (long)next(dice);
    case 1: return 1l << below(dice, 63);
    default: return numbers[below(dice, sizeof numbers / sizeof *numbers)];
    }
}

static long some_argument(struct dice *dice) {
    switch (below(dice, 5)) {
    case 0:
    case 1: return some_descriptor(dice);
    case 2: return some_number(dice);
    default: return (long)some_pointer(dice);
    }
}

static void one_call(struct dice *dice);

// What a fork left: it goes on a little, then ends.
static void child(struct dice *dice) {
    for (int i = 0; i < 200; i++) one_call(dice);
    _exit(0);
}

static void one_call(struct dice *dice) {
    long number = (long)below(dice, NUMBERS);
    if (out_of_bounds[number]) return;
    long args[6];
    for (int i = 0; i < 6; i++) args[i] = some_argument(dice);
    switch (number) {
    // Its own memory is what it needs to go on.
    case SYS_mmap:
    case SYS_munmap:
    case SYS_mprotect:
    case SYS_pkey_mprotect:
    case SYS_mremap:
    case SYS_madvise:
    case 462: // mseal
        args[0] = (long)(arena + (PAGES + below(dice, PAGES)) * PAGE);
        args[1] = (long)below(dice, 5 * PAGE);
        if (number == SYS_mremap) args[3] &= ~2l, args[2] = (long)below(dice, 9 * PAGE); // never to a fixed place
        if (number == SYS_mmap && args[3] & 0x100010) args[3] |= 0x10;
        break;
    case SYS_close:
    case SYS_close_range:
        args[0] = 3 + (long)below(dice, 60);
        args[1] = args[0] + (long)below(dice, 3);
        break;
    case SYS_dup2:
    case SYS_dup3: args[1] = 3 + (long)below(dice, 1100); break;
    case SYS_rt_sigaction:
    case SYS_kill:
    case SYS_tkill:
    case SYS_tgkill:
        // What wakes the threads keeps its handler; a signal without one would end this.
        args[0] = number == SYS_rt_sigaction ? 40 + (long)below(dice, 20) : args[0];
        args[1] = number == SYS_kill ? (long)below(dice, 2) * SIGCHLD : number == SYS_rt_sigaction ? 0 : args[1];
        if (number == SYS_tgkill) args[2] = 0;
        if (number == SYS_tkill) args[1] = 0;
        break;
    case SYS_clone:
        // A copy, not a thread on a stack that is none.
        args[0] &= ~(long)(0x100 | 0x4000 | 0x80000 | 0x10000 | 0x800);
        args[1] = 0;
        break;
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_pause: break;
    }
    long result = syscall(number, args[0], args[1], args[2], args[3], args[4], args[5]);
    if (result == 0 && (number == SYS_fork || number == SYS_clone)) child(dice);
    atomic_fetch_add(&calls, 1);
    if (result != -1) atomic_fetch_add(&worked, 1);
    if (number == SYS_rt_sigprocmask || number == SYS_ppoll || number == SYS_pselect6) {
        sigset_t none;
        sigemptyset(&none);
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
    }
}

static void woken(int number) { (void)number; }

static void *work(void *given) {
    struct dice dice = {(uint64_t)given};
    atomic_store(&ids[(uint64_t)given % THREADS], (int)syscall(SYS_gettid));
    while (!atomic_load(&over)) one_call(&dice);
    return NULL;
}

// Descriptors of every kind, again when they were closed.
static void stock(void) {
    int pair[2];
    for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; type++)
        if (type != SOCK_RAW && type != SOCK_RDM) (void)!socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, pair);
    (void)!pipe2(pair, O_NONBLOCK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(8080), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    (void)!bind(listener, (void *)&at, sizeof at);
    listen(listener, 5);
    (void)!connect(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), (void *)&at, sizeof at);
    epoll_create1(0);
    eventfd(1, EFD_NONBLOCK);
    timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    sigset_t some;
    sigfillset(&some);
    sigdelset(&some, SIGUSR1);
    signalfd(-1, &some, SFD_NONBLOCK);
    for (const char *const *path = paths; path < paths + 13; path++) (void)!open(*path, O_RDWR | O_NONBLOCK);
    (void)!open("/tmp", O_RDONLY | O_DIRECTORY);
    (void)!open("/", O_PATH);
    (void)!open("/tmp", O_TMPFILE | O_RDWR, 0600);
    (void)!open("/tmp/a", O_CREAT | O_RDWR, 0600);
}

int main(int argc, char **argv) {
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    long milliseconds = argc > 2 ? atol(argv[2]) : 500;
    for (int i = 3; i < argc; i++)
        if (atol(argv[i]) >= 0 && atol(argv[i]) < NUMBERS) out_of_bounds[atol(argv[i])] = 1;
    arena = mmap(NULL, (2 * PAGES + SLACK) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // A hole behind the half that pointers are into.
    mprotect(arena + PAGES * PAGE, PAGE, PROT_NONE);
    struct sigaction action = {.sa_handler = woken};
    sigaction(SIGUSR1, &action, NULL);
    for (int number = 1; number < 32; number++)
        if (number != SIGUSR1 && number != SIGSEGV && number != SIGBUS && number != SIGSYS && number != SIGCHLD && number != SIGILL)
            signal(number, SIG_IGN);
    stock();
    pthread_t thread;
    for (uint64_t i = 0; i < THREADS; i++)
        if (pthread_create(&thread, NULL, work, (void *)((seed * 1000003 + 1) * THREADS + i))) return 3;
    struct timespec now, end, tick = {0, 1000000};
    clock_gettime(CLOCK_MONOTONIC, &end);
    for (long round = 0;; round++) {
        syscall(SYS_nanosleep, &tick, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if ((now.tv_sec - end.tv_sec) * 1000 + (now.tv_nsec - end.tv_nsec) / 1000000 > milliseconds) break;
        for (int i = 0; i < THREADS; i++) // whoever waits
            if (ids[i]) syscall(SYS_tgkill, getpid(), ids[i], SIGUSR1);
        if (round % 64 == 63) stock();
    }
    atomic_store(&over, 1);
    char line[96];
    snprintf(line, sizeof line, "\ncalls %ld worked %ld\n", calls, worked);
    (void)!write(1, line, strlen(line));
    syscall(SYS_exit_group, 0);
}
