// Dynamically linked: has the loader run the C library (which is a program, too) from its own place
// ("own"), or from a copy in /tmp ("copy"), or from its own place with an output that takes nothing more
// ("held"), so that it can be looked at.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const char library[] = "/lib/x86_64-linux-gnu/libc.so.6", loader[] = "/lib64/ld-linux-x86-64.so.2";
    const char *program = library;
    if (argc > 1 && !strcmp(argv[1], "copy")) {
        int from = open(library, O_RDONLY), to = open("/tmp/copy", O_CREAT | O_WRONLY, 0755);
        static char block[65536];
        for (ssize_t n; (n = read(from, block, sizeof block)) > 0;) if (write(to, block, n) != n) return 2;
        close(to);
        program = "/tmp/copy";
    }
    if (argc > 1 && !strcmp(argv[1], "held")) {
        static char block[4096];
        dup2(2, 1);
        fcntl(2, F_SETFL, O_NONBLOCK);
        while (write(2, block, sizeof block) > 0) {}
        while (write(2, block, 1) > 0) {}
        fcntl(2, F_SETFL, 0);
    }
    char *const arguments[] = {"loader", (char *)program, NULL}, *const none[] = {NULL};
    // The path is absolute, so the descriptor's number satisfies the filter and means nothing.
    syscall(SYS_execveat, 1023, loader, arguments, none, AT_EMPTY_PATH);
    perror("execveat");
    return 1;
}
