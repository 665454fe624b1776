// Listens on $PORT and an abstract socket, or looks for another Worker that does.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_in tcp(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}
static struct sockaddr_un hidden = {.sun_family = AF_UNIX, .sun_path = "\0cloister-listener"};
static const socklen_t hidden_length = offsetof(struct sockaddr_un, sun_path) + 18;

static void say(long result) {
    puts(result < 0 ? strerrorname_np(errno) : "ok");
    fflush(stdout);
}
static void listens(void) {
    struct sockaddr_in at = tcp();
    int a = socket(AF_INET, SOCK_STREAM, 0), b = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(a, (void *)&at, sizeof at) || listen(a, 9) || bind(b, (void *)&hidden, hidden_length) || listen(b, 9))
        exit(1);
    puts("listening");
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct sockaddr_in at = tcp();
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "listen")) {
        listens();
        for (;;) pause();
    }
    if (!strcmp(what, "unbound")) {
        // The kernel chooses a port, which no rule about binding looks at.
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        socklen_t length = sizeof at;
        if (listen(fd, 9) || getsockname(fd, (void *)&at, &length)) {
            say(-1);
            return 1;
        }
        printf("listening on %d\n", ntohs(at.sin_port));
        fflush(stdout);
        for (;;) pause();
    }
    if (!strcmp(what, "both")) listens();
    if (!strcmp(what, "abstract") || !strcmp(what, "both")) say(connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&hidden, hidden_length));
    else say(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&at, sizeof at));
    return 0;
}
