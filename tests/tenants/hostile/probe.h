// Frame of every hostile program: a table of probes, run in order from the one named by argv[1].
//
// Before a probe its number and name are written, after it what the kernel said: "= ok", or the
// error's name. A probe that is killed leaves a line without an end; the test then starts the
// program again behind it. A probe returns -1 with errno when it was refused; anything else is
// a breach (in a harmless twin: success).
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

struct probe {
    long line;
    const char *name;
    long (*run)(void);
};

#define PROBE(id, text)                                                                            \
    static long id(void);                                                                          \
    static const struct probe probe_##id __attribute__((used, aligned(8), section("probes"))) = {__LINE__, text, id};    \
    static long id(void)

// A probe that is one expression.
#define TRY(id, text, expression)                                                                  \
    PROBE(id, text) { return (long)(expression); }

extern const struct probe __start_probes[], __stop_probes[];

static int argument_count __attribute__((unused));
static char **arguments __attribute__((unused));

// Argument n of the test's own, after the number of the first probe.
static const char *argument(int n) __attribute__((unused));
static const char *argument(int n) { return n + 2 < argument_count ? arguments[n + 2] : ""; }

static long refused(int error) __attribute__((unused));
static long refused(int error) {
    errno = error;
    return -1;
}

// A thing that must hold; EACCES stands for "it holds".
static long holds(int condition) __attribute__((unused));
static long holds(int condition) { return condition ? refused(EACCES) : 0; }

static void out(const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = write(1, text, left);
        if (n <= 0) _exit(99);
        text += n;
        left -= n;
    }
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    long first = argc > 1 ? atol(argv[1]) : 0;
    // In the order of the source: some probes build on those before them.
    long count = __stop_probes - __start_probes;
    const struct probe *probes[count];
    for (long i = 0; i < count; i++) {
        long at = i;
        for (; at > 0 && probes[at - 1]->line > __start_probes[i].line; at--) probes[at] = probes[at - 1];
        probes[at] = &__start_probes[i];
    }
    char line[256];
    for (long i = first; i < count; i++) {
        snprintf(line, sizeof line, "%ld %s", i, probes[i]->name);
        out(line);
        errno = 0;
        long result = probes[i]->run();
        int error = errno;
        if (result == -1) {
            const char *name = strerrorname_np(error);
            snprintf(line, sizeof line, " = %s\n", name ? name : "?");
        } else {
            snprintf(line, sizeof line, " = ok %ld\n", result);
        }
        out(line);
    }
    out("end\n");
    return 0;
}
