// A Worker with regular work: argv[1] rounds of 5 ms each, of some memory, a file and a switch of
// threads. Says how late its rounds were: median and the worst, in microseconds.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static int there, back;
static void *echo(void *nothing) {
    for (eventfd_t value; eventfd_read(there, &value) == 0;) eventfd_write(back, value);
    return nothing;
}
static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000 + time.tv_nsec / 1000;
}
static int later(const void *a, const void *b) { return *(const long *)a < *(const long *)b ? -1 : 1; }

int main(int argc, char **argv) {
    long rounds = argc > 1 ? atol(argv[1]) : 100, *late = calloc(rounds, sizeof *late);
    there = eventfd(0, 0), back = eventfd(0, 0);
    pthread_t thread;
    if (!late || pthread_create(&thread, NULL, echo, NULL)) return 3;
    puts("ready");
    fflush(stdout);
    for (long round = 0; round < rounds; round++) {
        long begin = now();
        usleep(5000);
        char *memory = malloc(256 << 10);
        memset(memory, 1, 256 << 10);
        int fd = open("/tmp/pulse", O_CREAT | O_TRUNC | O_WRONLY, 0600);
        if (write(fd, memory, 4096) != 4096) return 4;
        close(fd);
        free(memory);
        eventfd_t value;
        eventfd_write(there, 1);
        eventfd_read(back, &value);
        late[round] = now() - begin - 5000;
    }
    qsort(late, rounds, sizeof *late, later);
    printf("%ld %ld %ld\n", rounds, late[rounds / 2], late[rounds - 1]);
    return 0;
}
