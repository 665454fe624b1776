// Makes the calls that its arguments name, "number,a0,a1,a2,a3,a4,a5" in hexadecimal each, and says
// what became of each: an error's name, or "ok". A call that kills leaves a line without a result.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void out(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(99);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        unsigned long call[7] = {0};
        char *at = argv[i];
        for (int part = 0; part < 7 && *at; part++) {
            call[part] = strtoul(at, &at, 16);
            if (*at == ',') at++;
        }
        char line[64];
        snprintf(line, sizeof line, "%d ", i - 1);
        out(line);
        errno = 0;
        long result = syscall(call[0], call[1], call[2], call[3], call[4], call[5], call[6]);
        const char *name = result == -1 && errno ? strerrorname_np(errno) : NULL;
        snprintf(line, sizeof line, "%s\n", name ? name : "ok");
        out(line);
    }
    out("end\n");
    return 0;
}
