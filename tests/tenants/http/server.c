/* A tenant of the `http` contract that does what its path says: good, slow, greedy or broken.
 *
 * /               hello, with the process's own count of requests
 * /env/NAME       value of an environment variable, or 404
 * /args           the arguments, one a line
 * /echo           the request's body
 * /length         how many bytes the request's body had, and their sum modulo 2^32
 * /bytes/N        N bytes of body
 * /chunks/N       N chunks of a streamed body, 10 ms apart
 * /sleep/MS       answers after MS ms
 * /burn/MS        answers after MS ms of CPU time
 * /spin           burns CPU for ever
 * /allocate/MB    touches MB MiB of memory, then answers
 * /fill/MB        writes MB MiB into /tmp, answers how many it could
 * /read/PATH      content of /PATH, or 403 and the error's name
 * /header/N       answers with N bytes of one header field
 * /exit           ends the process without an answer
 * /abort          aborts
 * /leader         its first thread ends, others go on
 * /garbage        answers with bytes that are no HTTP
 * /half           promises 1000 bytes, sends 10, closes
 * /hang           never answers
 * /interim        answers with interim answers (1xx) for ever
 * /hand/NAME      hands the request on: response header cloister-dispatch: NAME
 * /proxy?URL      fetches http://... through $http_proxy, passes on status line and body as text
 * /after?URL      answers, and only then fetches URL through $http_proxy
 * /again?URL      the same, and the fetch asks for the same: URL/again?URL
 * /keep?URL       fetches URL through $http_proxy each 20 ms, streams the status of each, a line
 * /connect?H:P    CONNECT through $http_proxy, answers with the proxy's status line
 * /upgrade        101, then echoes bytes until the end
 *
 * Arguments: "exit" ends at once, "silent" never listens, "late MS" listens after MS ms of sleep.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int argument_count;
static char **arguments;
static atomic_int requests;
static int listener = 3;

static void *accepting(void *nothing);
static void end_thread(int number) { (void)number; syscall(SYS_exit, 0); }

struct reader { int fd; size_t begin, end; char data[65536]; };

static int fill(struct reader *r) {
    if (r->begin == r->end) r->begin = r->end = 0;
    ssize_t n = read(r->fd, r->data + r->end, sizeof r->data - r->end);
    if (n <= 0) return 0;
    r->end += (size_t)n;
    return 1;
}

/* One line without its end; 0 at the end of the stream. */
static int line(struct reader *r, char *out, size_t size) {
    size_t n = 0;
    for (;;) {
        while (r->begin < r->end) {
            char c = r->data[r->begin++];
            if (c == '\n') { if (n && out[n - 1] == '\r') n--; out[n] = 0; return 1; }
            if (n + 1 < size) out[n++] = c;
        }
        if (!fill(r)) return 0;
    }
}

static int all(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t n = send(fd, data, length, MSG_NOSIGNAL);
        if (n <= 0) return 0;
        data += n; length -= (size_t)n;
    }
    return 1;
}

static int say(int fd, const char *text) { return all(fd, text, strlen(text)); }

static int answer(int fd, int status, const char *extra, const char *body, size_t length) {
    char head[1024];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\ncontent-type: text/plain\r\ncontent-length: %zu\r\n%s\r\n", status, length, extra);
    return all(fd, head, (size_t)n) && all(fd, body, length);
}

static int text(int fd, int status, const char *body) { return answer(fd, status, "", body, strlen(body)); }

static void pause_ms(long ms) {
    struct timespec t = { ms / 1000, ms % 1000 * 1000000L };
    while (nanosleep(&t, &t) && errno == EINTR) {}
}

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static volatile uint64_t sink;
static void burn(double ms) {
    double end = cpu() + ms;
    while (ms < 0 || cpu() < end) for (int i = 0; i < 20000; i++) sink += (uint64_t)i * 2654435761u;
}

/* A connection to the proxy named by $http_proxy (http://A.B.C.D:PORT). */
static int proxy(void) {
    const char *url = getenv("http_proxy");
    char host[64]; int port;
    if (!url || sscanf(url, "http://%63[0-9.]:%d", host, &port) != 2) return -1;
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to)) { if (fd >= 0) close(fd); return -1; }
    return fd;
}

static int through_proxy(int fd, const char *request) {
    int out = proxy();
    if (out < 0) return text(fd, 500, strerror(errno));
    if (!all(out, request, strlen(request))) { close(out); return text(fd, 500, "write"); }
    size_t size = 1 << 20, n = 0;
    char *body = malloc(size);
    ssize_t got;
    while (n < size && (got = read(out, body + n, size - n)) > 0) {
        n += (size_t)got;
        /* A granted CONNECT stays open: its head is the answer. */
        if (!strncmp(request, "CONNECT", 7) && memmem(body, n, "\r\n\r\n", 4)) break;
    }
    close(out);
    int ok = answer(fd, 200, "", body, n);
    free(body);
    return ok;
}

/* Fetches through the proxy; the status, 0 for none. */
static int fetched(const char *url) {
    char request[20000], host[256] = "", head[13] = "", byte;
    sscanf(url, "http://%255[^/]", host);
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", url, host);
    int out = proxy();
    if (out < 0) return 0;
    size_t n = 0;
    if (all(out, request, strlen(request)))
        while (read(out, &byte, 1) > 0) if (n < sizeof head - 1) head[n++] = byte;
    close(out);
    return atoi(head + 9 * (n > 9));
}

static int one(struct reader *r) {
    int fd = r->fd;
    char first[16384], field[16384], method[16], path[16000] = "/";
    if (!line(r, first, sizeof first)) return 0;
    sscanf(first, "%15s %15999s", method, path);
    size_t length = 0; int chunked = 0;
    for (;;) {
        if (!line(r, field, sizeof field)) return 0;
        if (!*field) break;
        if (!strncasecmp(field, "content-length:", 15)) length = strtoull(field + 15, 0, 10);
        if (!strncasecmp(field, "transfer-encoding:", 18)) chunked = 1;
        if (!strncasecmp(field, "expect:", 7)) say(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    int number = atomic_fetch_add(&requests, 1) + 1;
    char small[512];
    const char *rest = strchr(path + 1, '/');
    rest = rest ? rest + 1 : "";
    int is_echo = !strcmp(path, "/echo");
    /* Answers before it has read the body, and goes on with the connection. */
    int is_early = !strcmp(path, "/early");
    if (is_early && !text(fd, 200, "early\n")) return 0;
    char *body = 0; size_t have = 0, room = 0; uint64_t total = 0; uint32_t sum = 0;
    for (;;) {
        size_t left = length;
        if (chunked) {
            if (!line(r, field, sizeof field)) return 0;
            left = strtoull(field, 0, 16);
        }
        int last = left == 0;
        while (left) {
            if (r->begin == r->end && !fill(r)) return 0;
            size_t n = r->end - r->begin;
            if (n > left) n = left;
            for (size_t i = 0; i < n; i++) sum += (unsigned char)r->data[r->begin + i];
            if (is_echo) {
                if (have + n > room) { room = (have + n) * 2; body = realloc(body, room); }
                memcpy(body + have, r->data + r->begin, n);
                have += n;
            }
            r->begin += n; left -= n; total += n;
        }
        if (!chunked) break;
        if (last) { while (line(r, field, sizeof field) && *field) {} break; }
        if (!line(r, field, sizeof field)) return 0;
    }
    if (is_early) return 1;
    if (is_echo) { int ok = answer(fd, 200, "", body ? body : "", have); free(body); return ok; }
    if (!strcmp(path, "/length")) { snprintf(small, sizeof small, "%llu %u\n", (unsigned long long)total, sum); return text(fd, 200, small); }
    if (!strcmp(path, "/")) { snprintf(small, sizeof small, "hello %d\n", number); return text(fd, 200, small); }
    if (!strncmp(path, "/env/", 5)) { const char *v = getenv(rest); return v ? text(fd, 200, v) : text(fd, 404, "unset"); }
    if (!strcmp(path, "/args")) {
        *small = 0;
        for (int i = 0; i < argument_count; i++) { strncat(small, arguments[i], 100); strcat(small, "\n"); }
        return text(fd, 200, small);
    }
    if (!strncmp(path, "/bytes/", 7)) {
        size_t n = strtoull(rest, 0, 10);
        snprintf(small, sizeof small, "HTTP/1.1 200 X\r\ncontent-length: %zu\r\n\r\n", n);
        if (!all(fd, small, strlen(small))) return 0;
        static char block[65536];
        memset(block, 'x', sizeof block);
        while (n) { size_t k = n < sizeof block ? n : sizeof block; if (!all(fd, block, k)) return 0; n -= k; }
        return 1;
    }
    if (!strncmp(path, "/chunks/", 8)) {
        if (!say(fd, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")) return 0;
        for (long i = atol(rest); i > 0; i--) { if (!say(fd, "6\r\nchunk\n\r\n")) return 0; pause_ms(10); }
        return say(fd, "0\r\n\r\n");
    }
    if (!strncmp(path, "/sleep/", 7)) { pause_ms(atol(rest)); return text(fd, 200, "slept\n"); }
    if (!strncmp(path, "/burn/", 6)) { burn(atof(rest)); return text(fd, 200, "burnt\n"); }
    if (!strcmp(path, "/spin")) burn(-1);
    if (!strncmp(path, "/allocate/", 10)) {
        size_t n = (size_t)atol(rest) << 20;
        char *memory = malloc(n);
        if (!memory) return text(fd, 507, "malloc");
        for (size_t i = 0; i < n; i += 4096) memory[i] = (char)i;
        free(memory);
        return text(fd, 200, "allocated\n");
    }
    if (!strncmp(path, "/fill/", 6)) {
        int file = open("/tmp/fill", O_CREAT | O_WRONLY | O_TRUNC, 0600);
        long done = 0;
        static char mib[1 << 20];
        for (long i = atol(rest); i > 0 && write(file, mib, sizeof mib) == (ssize_t)sizeof mib; i--) done++;
        close(file); unlink("/tmp/fill");
        snprintf(small, sizeof small, "%ld\n", done);
        return text(fd, 200, small);
    }
    if (!strncmp(path, "/read/", 6)) {
        int file = open(path + 5, O_RDONLY);
        if (file < 0) return text(fd, 403, strerrorname_np(errno));
        static char content[65536];
        ssize_t n = read(file, content, sizeof content);
        close(file);
        return n < 0 ? text(fd, 403, strerrorname_np(errno)) : answer(fd, 200, "", content, (size_t)n);
    }
    if (!strncmp(path, "/header/", 8)) {
        size_t n = strtoull(rest, 0, 10);
        char *value = malloc(n + 1);
        memset(value, 'h', n);
        int ok = say(fd, "HTTP/1.1 200 X\r\ncontent-length: 0\r\nx-long: ") && all(fd, value, n) && say(fd, "\r\n\r\n");
        free(value);
        return ok;
    }
    if (!strcmp(path, "/exit")) _exit(3);
    if (!strcmp(path, "/abort")) abort();
    if (!strcmp(path, "/leader")) {
        signal(SIGUSR1, end_thread);
        pthread_t thread;
        pthread_create(&thread, 0, accepting, 0);
        syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
        return text(fd, 200, "it ends\n");
    }
    if (!strcmp(path, "/garbage")) { say(fd, "this is not HTTP at all\r\n\r\n"); return 0; }
    if (!strcmp(path, "/half")) { say(fd, "HTTP/1.1 200 X\r\ncontent-length: 1000\r\n\r\n0123456789"); return 0; }
    if (!strcmp(path, "/interim")) {
        static char interim[17 * 4096];
        for (size_t i = 0; i < sizeof interim; i += 17) memcpy(interim + i, "HTTP/1.1 100 \r\n\r\n", 17);
        while (all(fd, interim, sizeof interim)) {}
        return 0;
    }
    if (!strcmp(path, "/hang")) for (;;) pause();
    if (!strncmp(path, "/hand/", 6)) { snprintf(small, sizeof small, "cloister-dispatch: %s\r\n", rest); return answer(fd, 200, small, "", 0); }
    if (!strncmp(path, "/proxy?", 7)) {
        char request[20000], host[256] = "";
        sscanf(path + 7, "http://%255[^/]", host);
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n", path + 7, host);
        return through_proxy(fd, request);
    }
    if (!strncmp(path, "/after?", 7)) {
        int ok = text(fd, 200, "later\n");
        pause_ms(100);
        fetched(path + 7);
        return ok;
    }
    if (!strncmp(path, "/again?", 7)) {
        char next[2 * sizeof path];
        int ok = text(fd, 200, "again\n");
        pause_ms(20);
        snprintf(next, sizeof next, "%s%s", path + 7, path);
        fetched(next);
        return ok;
    }
    if (!strncmp(path, "/keep?", 6)) {
        if (!say(fd, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n")) return 0;
        for (;;) {
            snprintf(small, sizeof small, "4\r\n%03d\n\r\n", fetched(path + 6));
            if (!say(fd, small)) return 0;
            pause_ms(20);
        }
    }
    if (!strncmp(path, "/connect?", 9)) {
        char request[2048];
        snprintf(request, sizeof request, "CONNECT %.900s HTTP/1.1\r\nhost: %.900s\r\n\r\n", path + 9, path + 9);
        return through_proxy(fd, request);
    }
    if (!strcmp(path, "/upgrade")) {
        if (!say(fd, "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")) return 0;
        do {
            if (!all(fd, r->data + r->begin, r->end - r->begin)) return 0;
            r->begin = r->end;
        } while (fill(r));
        return 0;
    }
    return text(fd, 404, "no such path\n");
}

static void *serve(void *given) {
    struct reader *r = given;
    while (one(r)) {}
    close(r->fd);
    free(r);
    return 0;
}

static void *accepting(void *nothing) {
    for (;;) {
        int fd = accept(listener, 0, 0);
        if (fd < 0) { if (errno == EINTR || errno == EAGAIN) { pause_ms(1); continue; } perror("accept"); exit(1); }
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct reader *r = malloc(sizeof *r);
        r->fd = fd; r->begin = r->end = 0;
        pthread_t thread;
        if (pthread_create(&thread, 0, serve, r)) { close(fd); free(r); } else pthread_detach(thread);
    }
    return nothing;
}

int main(int count, char **values) {
    argument_count = count; arguments = values;
    signal(SIGPIPE, SIG_IGN);
    if (count > 1 && !strcmp(values[1], "exit")) { fprintf(stderr, "exiting as told\n"); return 7; }
    if (count > 1 && !strcmp(values[1], "silent")) for (;;) pause();
    if (count > 2 && !strcmp(values[1], "late")) pause_ms(atol(values[2]));
    if (count > 2 && !strcmp(values[1], "early")) fetched(values[2]);
    if (!getenv("LISTEN_FDS")) {
        const char *port = getenv("PORT");
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port ? port : "8080")) };
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        listener = socket(AF_INET, SOCK_STREAM, 0);
        int on = 1;
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1024)) { perror("listen"); return 1; }
    }
    accepting(0);
    return 0;
}
