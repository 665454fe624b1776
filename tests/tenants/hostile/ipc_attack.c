// Speaks the Worker protocol by hand, and breaks it as the request's path says (`/ok` is honest).
// argv[1] breaks the greeting: "no-hello", "bad-protocol", "garbage-hello", "closes".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CONTROL = 3 };

// One frame under construction.
static unsigned char message[1 << 20];
static size_t length;

static void bytes(const void *data, size_t size) {
    memcpy(message + length, data, size);
    length += size;
}
static void u8(uint8_t v) { bytes(&v, 1); }
static void u16(uint16_t v) { bytes(&v, 2); }
static void u32(uint32_t v) { bytes(&v, 4); }
static void u64(uint64_t v) { bytes(&v, 8); }
static void text(const char *v) {
    u64(strlen(v));
    bytes(v, strlen(v));
}
static void field(const char *name, const char *value) {
    u16(strlen(name));
    u16(strlen(value));
    bytes(name, strlen(name));
    bytes(value, strlen(value));
}

static int stream = -1;

static int put(const void *data, size_t size) {
    while (size > 0) {
        ssize_t n = send(stream, data, size, MSG_NOSIGNAL);
        if (n <= 0) return -1;
        data = (const char *)data + n;
        size -= n;
    }
    return 0;
}
static int frame_claiming(uint32_t claim, uint32_t body_claim, const void *body, size_t body_length) {
    uint32_t prefix[2] = {claim, body_claim};
    if (put(prefix, 8) || put(message, length) || put(body, body_length)) return -1;
    length = 0;
    return 0;
}
static int frame(const char *body) { return frame_claiming(length, strlen(body), body, strlen(body)); }

enum { HELLO, RESPONSE, HANDOFF, EXCEPTION, FETCH, OPEN, DISCARD, BODY_END, CANCEL_FETCH, DONE };
enum { EMPTY, INLINE, STREAM, FORWARD, TUNNEL };
enum { OF_REQUEST, OF_RESPONSE, OF_FETCH_REQUEST, OF_FETCH_RESPONSE, OF_TUNNEL, OF_FETCH_TUNNEL };

static int hello(uint16_t protocol) {
    u32(HELLO);
    u16(protocol);
    return frame("");
}
static int respond(uint64_t id, uint16_t status, uint32_t kind, const char *body) {
    u32(RESPONSE);
    u64(id);
    u16(status);
    u64(0);
    u32(kind);
    if (kind == STREAM) u8(0);
    if (kind == FORWARD) {
        u32(OF_REQUEST);
        u64(id);
    }
    u8(0);
    return frame(body);
}
static int respond_with(uint64_t id, const char *name, const char *value) {
    u32(RESPONSE);
    u64(id);
    u16(200);
    u64(4 + strlen(name) + strlen(value));
    field(name, value);
    u32(INLINE);
    u8(0);
    return frame("x");
}
static int of_body(uint32_t kind, uint32_t which, uint64_t id) {
    u32(kind);
    u32(which);
    u64(id);
    if (kind == BODY_END) {
        u32(0);
        u64(5);
        u64(0);
    }
    return frame("");
}
static int fetch(uint64_t number, uint64_t request, const char *uri) {
    u32(FETCH);
    u64(number);
    u64(request);
    u32(0); // egress
    text("GET");
    text(uri);
    u64(0);
    u32(EMPTY);
    return frame("");
}
static int handoff(uint64_t id, const char *binding) {
    u32(HANDOFF);
    u64(id);
    u32(2); // service
    text(binding);
    u8(1); // a head of its own
    text("GET");
    text("http://x/");
    u64(0);
    u32(EMPTY);
    u8(0);
    return frame("");
}
// Sends `data` with so many copies of a descriptor.
static ssize_t pass(int to, const void *data, size_t size, int descriptor, int count) {
    struct iovec part = {(void *)data, size};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(300 * sizeof(int))];
    } control = {0};
    struct msghdr all = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    for (int i = 0; i < count; i++) memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &descriptor, sizeof(int));
    return sendmsg(to, &all, MSG_NOSIGNAL | MSG_DONTWAIT);
}
// A valid answer that comes with descriptors; when the kernel refuses them, one that says so.
static int with_descriptors(uint64_t id, int descriptor, int count) {
    char said[64];
    if (descriptor < 0) return respond(id, 200, INLINE, strerrorname_np(errno));
    int size = snprintf(said, sizeof said, "came with %d", count);
    u32(RESPONSE);
    u64(id);
    u16(200);
    u64(0);
    u32(INLINE);
    u8(0);
    static unsigned char whole[512];
    uint32_t prefix[2] = {length, size};
    memcpy(whole, prefix, 8);
    memcpy(whole + 8, message, length);
    memcpy(whole + 8 + length, said, size);
    size += 8 + length;
    length = 0;
    if (pass(stream, whole, size, descriptor, count) == size) return 0;
    snprintf(said, sizeof said, "sending: %s", strerrorname_np(errno));
    return respond(id, 200, INLINE, said);
}

static int receive_descriptor(int wanted_kind) {
    static unsigned char record[200 * 1024];
    for (;;) {
        struct iovec part = {record, sizeof record};
        union {
            struct cmsghdr header;
            char space[CMSG_SPACE(32 * sizeof(int))];
        } control;
        struct msghdr all = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t got = recvmsg(CONTROL, &all, MSG_CMSG_CLOEXEC);
        if (got <= 0) exit(0);
        uint32_t kind;
        memcpy(&kind, record, 4);
        struct cmsghdr *header = CMSG_FIRSTHDR(&all);
        if ((int)kind == wanted_kind && header) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header), sizeof descriptor);
            return descriptor;
        }
    }
}

// Fetches it has in flight at the most: fewer than it may have.
#define MOST_FETCHES 200
// Reads until so many messages came.
static void answers(uint64_t wanted) {
    static unsigned char come[1 << 16];
    static size_t have;
    static uint64_t count;
    while (count < wanted) {
        ssize_t got = recv(stream, come + have, sizeof come - have, 0);
        if (got <= 0) exit(0);
        have += got;
        size_t at = 0;
        for (;;) {
            uint32_t prefix[2];
            if (have - at < sizeof prefix) break;
            memcpy(prefix, come + at, sizeof prefix);
            size_t whole = sizeof prefix + prefix[0] + prefix[1];
            if (have - at < whole) break;
            at += whole;
            count++;
        }
        have -= at;
        memmove(come, come + at, have);
    }
}

static void attack(const char *what, uint64_t id) {
    static char big[1 << 16];
#define IS(name) (!strcmp(what, name))
    if (IS("garbage")) {
        int random = open("/dev/urandom", O_RDONLY);
        for (int i = 0; i < 16 && read(random, big, sizeof big) > 0; i++) put(big, sizeof big);
    } else if (IS("half")) {
        put("\5\0", 2);
        shutdown(stream, SHUT_WR);
    } else if (IS("half-message")) {
        uint32_t prefix[2] = {100, 0};
        put(prefix, 8);
        put("abc", 3);
        shutdown(stream, SHUT_WR);
    } else if (IS("huge-message")) {
        frame_claiming(0xffffffff, 0, "", 0);
    } else if (IS("huge-body")) {
        u32(DONE);
        u64(id);
        frame_claiming(length, 0xffffffff, "", 0);
    } else if (IS("just-over")) {
        frame_claiming(64 * 1024 + 1, 0, big, sizeof big);
    } else if (IS("trailing")) {
        u32(RESPONSE);
        u64(id);
        u16(200);
        u64(0);
        u32(EMPTY);
        u8(0);
        u8(7);
        frame("");
    } else if (IS("unknown-variant")) {
        u32(77);
        frame("");
    } else if (IS("bad-bool")) {
        u32(RESPONSE);
        u64(id);
        u16(200);
        u64(0);
        u32(EMPTY);
        u8(9);
        frame("");
    } else if (IS("length-bomb")) {
        u32(EXCEPTION);
        u64(id);
        u64(UINT64_MAX);
        frame("");
    } else if (IS("not-utf8")) {
        u32(EXCEPTION);
        u64(id);
        u64(4);
        bytes("\xff\xfe\xfd\xfc", 4);
        frame("");
    } else if (IS("long-exception")) {
        u32(EXCEPTION);
        u64(id);
        u64(60000);
        memset(message + length, 'x', 60000);
        length += 60000;
        frame("");
    } else if (IS("unknown-id")) {
        respond(id + 1000, 200, INLINE, "x");
    } else if (IS("id-zero")) {
        respond(0, 200, INLINE, "x");
    } else if (IS("hello-again")) {
        hello(2);
    } else if (IS("status-low")) {
        respond(id, 42, INLINE, "x");
    } else if (IS("status-high")) {
        respond(id, 60000, INLINE, "x");
    } else if (IS("status-100")) {
        respond(id, 100, INLINE, "x");
    } else if (IS("status-101")) {
        respond(id, 101, INLINE, "x");
    } else if (IS("tunnel-200")) {
        respond(id, 200, TUNNEL, "");
    } else if (IS("bad-name")) {
        respond_with(id, "bad name", "x");
    } else if (IS("empty-name")) {
        respond_with(id, "", "x");
    } else if (IS("split-response")) {
        respond_with(id, "x", "a\r\nset-cookie: stolen=1\r\n\r\n<html>");
    } else if (IS("nul-value")) {
        u32(RESPONSE);
        u64(id);
        u16(200);
        u64(6);
        u16(1);
        u16(1);
        bytes("x\0", 2);
        u32(INLINE);
        u8(0);
        frame("x");
    } else if (IS("cut-headers")) {
        u32(RESPONSE);
        u64(id);
        u16(200);
        u64(4);
        u16(1000);
        u16(1000);
        u32(INLINE);
        u8(0);
        frame("x");
    } else if (IS("body-not-inline")) {
        respond(id, 200, EMPTY, "there is one");
    } else if (IS("forward-nothing")) {
        respond(id, 200, FORWARD, "");
    } else if (IS("open-unknown")) {
        of_body(OPEN, OF_REQUEST, id + 7);
    } else if (IS("open-own")) {
        of_body(OPEN, OF_RESPONSE, id);
    } else if (IS("discard-unknown")) {
        of_body(DISCARD, OF_FETCH_RESPONSE, 99);
    } else if (IS("end-unknown")) {
        of_body(BODY_END, OF_RESPONSE, id);
    } else if (IS("handoff-unbound")) {
        handoff(id, "NOT_BOUND");
    } else if (IS("fetch-unknown-request")) {
        fetch(1, id + 1000, "http://example.com/");
    } else if (IS("fetch-zero")) {
        fetch(0, id, "http://example.com/");
    } else if (IS("fetch-backwards")) {
        fetch(5, id, "http://example.com/");
        fetch(4, id, "http://example.com/");
    } else if (IS("fetch-flood")) {
        for (uint64_t i = 1; i < 100000; i++)
            if (fetch(i, id, "http://example.com/")) break;
    } else if (IS("cancel-unknown")) {
        u32(CANCEL_FETCH);
        u64(12345);
        frame("");
    } else if (IS("done-unknown")) {
        u32(DONE);
        u64(id + 5);
        frame("");
    } else if (IS("flood")) {
        // Each is answered, and the answers are read: nothing of this is forbidden, only too much.
        for (uint64_t i = 1; fetch(i, id, "no URI") == 0; i++) {
            if (i > MOST_FETCHES) answers(i - MOST_FETCHES);
            if (i == 300) (void)!write(2, "it floods\n", 10);
        }
    } else if (IS("flood-in-flight")) {
        for (uint64_t i = 1; i < 1000000; i++)
            if (fetch(i, id, "no URI")) break;
    } else if (IS("flood-of-strays")) {
        for (;;) {
            u32(DONE);
            u64(id);
            if (frame("")) break;
        }
    } else if (IS("twice")) {
        respond(id, 200, INLINE, "once");
        respond(id, 200, INLINE, "twice");
    } else if (IS("descriptors")) {
        with_descriptors(id, open("/tmp", O_RDONLY | O_DIRECTORY), 253);
    } else if (IS("too-many-descriptors")) {
        with_descriptors(id, open("/tmp", O_RDONLY | O_DIRECTORY), 254);
    } else if (IS("descriptor")) {
        int pair[2];
        with_descriptors(id, socketpair(AF_UNIX, SOCK_STREAM, 0, pair) ? -1 : pair[0], 1);
    } else if (IS("memfd")) {
        with_descriptors(id, syscall(SYS_memfd_create, "x", 0), 1);
    } else if (IS("on-control")) {
        // The supervisor never reads there: its end takes nothing, not even into a buffer.
        char said[64];
        int count = 0, folder = open("/tmp", O_RDONLY | O_DIRECTORY);
        while (count < 100000 && pass(CONTROL, big, 1000, folder, 100) == 1000) count++;
        snprintf(said, sizeof said, "%s %s", count > 0 ? "some, then" : "none:", strerrorname_np(errno));
        respond(id, 200, INLINE, said);
    } else if (IS("stream-too-long") || IS("stream-no-end") || IS("stream-wrong-end")) {
        u32(RESPONSE);
        u64(id);
        u16(200);
        u64(0);
        u32(STREAM);
        u8(1);
        u64(10);
        u8(0);
        frame("");
        int body = receive_descriptor(2);
        if (IS("stream-too-long")) {
            for (;;)
                if (send(body, big, sizeof big, MSG_NOSIGNAL) <= 0) break;
        } else {
            send(body, "12345", 5, MSG_NOSIGNAL);
            shutdown(body, SHUT_WR);
            if (IS("stream-wrong-end")) of_body(BODY_END, OF_RESPONSE, id);
        }
    } else if (IS("closes")) {
        close(stream);
    } else if (IS("exits")) {
        exit(3);
    } else if (IS("crashes")) {
        *(volatile int *)8 = 1;
    } else if (IS("log-lines") || IS("log-without-end")) {
        memset(big, 'x', sizeof big);
        if (IS("log-lines"))
            for (size_t at = 0; at < sizeof big; at += 50) big[at] = '\n';
        for (;;) (void)!write(2, big, sizeof big);
    } else if (IS("unread-body")) {
        // Asks for the request's body, and reads none of it.
        of_body(OPEN, OF_REQUEST, id);
        receive_descriptor(2);
    } else if (IS("silent")) {
        // Never answers, never reads again.
        for (;;) pause();
    } else {
        respond(id, 200, INLINE, "fine");
    }
}

static int get(void *data, size_t size) {
    while (size > 0) {
        ssize_t n = read(stream, data, size);
        if (n <= 0) return -1;
        data = (char *)data + n;
        size -= n;
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *greeting = argc > 1 ? argv[1] : "";
    for (;;) {
        if (stream < 0) stream = receive_descriptor(1);
        if (!strcmp(greeting, "no-hello")) respond(1, 200, INLINE, "x");
        else if (!strcmp(greeting, "bad-protocol")) hello(999);
        else if (!strcmp(greeting, "garbage-hello")) put("hello world, this is not a frame", 32);
        else if (!strcmp(greeting, "closes")) close(stream);
        else hello(2);
        for (;;) {
            static unsigned char in[1 << 18];
            uint32_t prefix[2], kind;
            if (get(prefix, 8) || prefix[0] + prefix[1] > sizeof in || get(in, prefix[0] + prefix[1])) break;
            memcpy(&kind, in, 4);
            if (kind != 0) continue;
            uint64_t id, method, uri;
            memcpy(&id, in + 4, 8);
            memcpy(&method, in + 12, 8);
            memcpy(&uri, in + 20 + method, 8);
            char path[256] = "";
            char *at = (char *)in + 28 + method, *end = at + uri, *slash;
            slash = memmem(at, end - at, "://", 3);
            slash = slash ? memchr(slash + 3, '/', end - slash - 3) : at;
            if (slash && end - slash - 1 < (long)sizeof path) memcpy(path, slash + 1, end - slash - 1);
            attack(path, id);
        }
        close(stream);
        stream = -1;
    }
}
