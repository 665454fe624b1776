// What an honest program does: threads, signals to itself, lower limits.
#include "probe.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

static volatile sig_atomic_t got;
static void on_signal(int number) { got = number; }
static void *in_thread(void *value) { return value; }

PROBE(thread, "a thread") {
    pthread_t thread;
    int error = pthread_create(&thread, NULL, in_thread, NULL);
    return error ? refused(error) : pthread_join(thread, NULL);
}
PROBE(own_signal, "a signal to itself") {
    signal(SIGUSR1, on_signal);
    return raise(SIGUSR1) == 0 && got == SIGUSR1 ? 0 : -1;
}
TRY(many, "end many descriptors", syscall(SYS_close_range, 900, 1000, 0))
TRY(name, "its own name", prctl(PR_SET_NAME, "twin"))
TRY(lower, "lower a limit", setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, 64}))
TRY(memory, "memory", (long)mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
TRY(who, "its ids", getuid())
TRY(usage, "its usage", getrusage(RUSAGE_SELF, &(struct rusage){0}))
PROBE(no_child, "wait without children") { return wait(NULL) == -1 && errno == ECHILD ? 0 : -1; }
