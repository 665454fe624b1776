// Calls every system call number with bad pointers and descriptors.
// argv: first number, last number (inclusive), and "i386" to enter by int 0x80.
// Writes "number " before the call and the result behind it; the test goes on behind a killed one.
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

static void nothing(int number) { (void)number; }

static void out(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(99);
}

static long by_i386(long number) {
    long result = number;
    __asm__ volatile("int $0x80" : "+a"(result) : "b"(-1l), "c"(-1l), "d"(-1l) : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long first = strtol(argv[1], NULL, 0), last = strtol(argv[2], NULL, 0);
    int i386 = argc > 3 && !strcmp(argv[3], "i386");
    // What waits is woken, again and again, so that "waits" is an answer too.
    struct sigaction action = {.sa_handler = nothing};
    char line[64];
    for (long number = first; number <= last; number++) {
        snprintf(line, sizeof line, "%ld ", number);
        out(line);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        sigaction(SIGALRM, &action, NULL);
        struct itimerval soon = {{0, 20000}, {0, 20000}};
        setitimer(ITIMER_REAL, &soon, NULL);
        errno = 0;
        long result;
        if (i386) {
            result = by_i386(number);
            if (result < 0) { errno = -result; result = -1; }
        } else {
            result = syscall(number, -1l, -1l, -1l, -1l, -1l, -1l);
        }
        int error = errno;
        // The child of a fork that was allowed; vfork's shares this stack.
        if (result == 0 && (number == SYS_fork || number == SYS_vfork)) _exit(0);
        const char *name = result == -1 && error ? strerrorname_np(error) : NULL;
        snprintf(line, sizeof line, "%s\n", name ? name : "ok");
        out(line);
    }
    out("end\n");
    return 0;
}
