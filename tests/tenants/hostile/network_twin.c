// What an honest server does: listens, connects to its way out, pairs.
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

static int listener = -1;
PROBE(listens, "listen on $PORT") {
    listener = socket(AF_INET, SOCK_STREAM, 0);
    int one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
    if (bind(listener, (void *)&at, sizeof at) < 0) return -1;
    return listen(listener, 16);
}
PROBE(connects, "connect to the proxy and talk") {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(3128)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&to, sizeof to) < 0) return -1;
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) return -1;
    return send(fd, "x", 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}
PROBE(pair, "socketpair") {
    int pair[2];
    return socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
}
PROBE(unix_in_tmp, "Unix socket in /tmp") {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX, .sun_path = "/tmp/s"};
    return bind(fd, (void *)&at, sizeof at);
}
