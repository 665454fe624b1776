// The kernel's own cases for landlock, as far as they make sense from inside a Worker: what moves,
// shortens, makes or names files where it has no right to, and TCP ports that are not its own.
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

static int own(const char *path) { return close(open(path, O_CREAT | O_WRONLY, 0600)); }
static long bound(int family, int port) {
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    struct sockaddr_in six_or_four = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    return family == AF_INET ? bind(fd, (void *)&six_or_four, sizeof six_or_four) : bind(fd, (void *)&six, sizeof six);
}
static long connected(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(fd, (void *)&to, sizeof to);
}
static long socket_at(const char *path) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, path);
    return bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&at, sizeof at);
}
static int root(void) { return open("/", O_PATH | O_DIRECTORY); }

// Moving and linking between folders of other rights, in both directions.
TRY(move_out, "rename /tmp/a to /a", (own("/tmp/a"), rename("/tmp/a", "/a")))
TRY(move_to_dev, "rename /tmp/a over /dev/null", (own("/tmp/a"), rename("/tmp/a", "/dev/null")))
TRY(move_to_etc, "rename /tmp/a over /etc/passwd", (own("/tmp/a"), rename("/tmp/a", "/etc/passwd")))
TRY(move_in, "rename /etc/passwd to /tmp", rename("/etc/passwd", "/tmp/passwd"))
TRY(swap, "exchange /tmp/a and /dev/null", (own("/tmp/a"), renameat2(AT_FDCWD, "/tmp/a", AT_FDCWD, "/dev/null", RENAME_EXCHANGE)))
TRY(swap_folders, "exchange /tmp/d and /dev", (mkdir("/tmp/d", 0700), renameat2(AT_FDCWD, "/tmp/d", AT_FDCWD, "/dev", RENAME_EXCHANGE)))
TRY(whiteout_move, "rename with a whiteout", (own("/tmp/a"), renameat2(AT_FDCWD, "/tmp/a", AT_FDCWD, "/tmp/b2", RENAME_WHITEOUT)))
TRY(move_tmp, "rename /tmp itself", rename("/tmp", "/tmp2"))
TRY(link_out, "hard link of /tmp/a in /etc", (own("/tmp/a"), link("/tmp/a", "/etc/a")))
TRY(link_in, "hard link of /etc/passwd in /tmp", link("/etc/passwd", "/tmp/passwd"))
TRY(link_by_descriptor, "hard link of an open /etc/passwd", linkat(open("/etc/passwd", O_PATH), "", AT_FDCWD, "/tmp/passwd", AT_EMPTY_PATH))
TRY(link_zero, "hard link of /dev/zero in /tmp", linkat(AT_FDCWD, "/dev/zero", AT_FDCWD, "/tmp/zero", 0))
// Shortening.
TRY(truncate_etc, "truncate /etc/passwd", truncate("/etc/passwd", 0))
TRY(open_truncate, "open /etc/passwd with O_TRUNC", open("/etc/passwd", O_RDONLY | O_TRUNC))
TRY(open_write_truncate, "open /etc/group for writing with O_TRUNC", open("/etc/group", O_WRONLY | O_TRUNC))
TRY(ftruncate_etc, "ftruncate of what is open for reading", ftruncate(open("/etc/passwd", O_RDONLY), 0))
TRY(fallocate_etc, "fallocate of what is open for reading", fallocate(open("/etc/passwd", O_RDONLY), 0, 0, 4096))
TRY(create_truncate, "creat over /dev/zero's folder", creat("/dev/new", 0600))
// Making and removing.
TRY(make_fifo, "a fifo in /", mkfifo("/fifo", 0600))
TRY(make_socket, "a Unix socket in /", socket_at("/socket"))
TRY(make_socket_dev, "a Unix socket in /dev", socket_at("/dev/log"))
TRY(make_symlink_etc, "a symlink in /etc", symlink("/tmp", "/etc/x"))
TRY(make_folder_dev, "a folder in /dev", mkdir("/dev/shm", 0700))
TRY(remove_file, "unlink /etc/passwd", unlink("/etc/passwd"))
TRY(remove_folder, "rmdir /etc", rmdir("/etc"))
TRY(remove_tmp, "rmdir /tmp", rmdir("/tmp"))
TRY(remove_app, "rmdir /app", rmdir("/app"))
TRY(no_name, "O_TMPFILE in /etc", open("/etc", O_TMPFILE | O_RDWR, 0600))
TRY(no_name_dev, "O_TMPFILE in /dev", open("/dev", O_TMPFILE | O_RDWR, 0600))
// What landlock does not handle is for the mount to refuse.
TRY(mode_etc, "chmod /etc/passwd", chmod("/etc/passwd", 0666))
TRY(mode_root, "fchmodat of an open /", fchmodat(root(), ".", 0777, 0))
TRY(time_etc, "utimes /etc/passwd", utimes("/etc/passwd", NULL))
TRY(owner_etc, "chown /etc/passwd", chown("/etc/passwd", 1000, 1000))
TRY(attribute, "setxattr on /etc/passwd", syscall(SYS_setxattr, "/etc/passwd", "user.x", "x", 1ul, 0))
// Paths that are not connected, or go by way of others.
TRY(above_moved, "a moved folder's .. leads nowhere else", ({
        mkdir("/tmp/p", 0700);
        mkdir("/tmp/p/q", 0700);
        int q = open("/tmp/p/q", O_PATH | O_DIRECTORY);
        rename("/tmp/p/q", "/tmp/r");
        openat(q, "../../dev/new", O_CREAT | O_WRONLY, 0600);
    }))
TRY(above_removed, "a removed folder makes nothing", ({
        mkdir("/tmp/gone", 0700);
        int gone = open("/tmp/gone", O_PATH | O_DIRECTORY);
        rmdir("/tmp/gone");
        openat(gone, "x", O_CREAT | O_WRONLY, 0600);
    }))
TRY(from_root, "create below an open /", openat(root(), "x", O_CREAT | O_WRONLY, 0600))
TRY(from_dev, "create below an open /dev", openat(open("/dev", O_PATH), "x", O_CREAT | O_WRONLY, 0600))
TRY(reopen, "open an O_PATH descriptor of /etc/passwd for writing", openat(open("/etc/passwd", O_PATH), "", O_RDWR))
TRY(link_then_write, "write /etc/passwd through a symlink in /tmp", (symlink("/etc/passwd", "/tmp/s1"), open("/tmp/s1", O_WRONLY)))
TRY(link_then_create, "create in / through a symlink in /tmp", (symlink("/", "/tmp/s2"), open("/tmp/s2/x", O_CREAT | O_WRONLY, 0600)))
TRY(write_random, "ioctl of a device: add entropy", syscall(SYS_ioctl, open("/dev/random", O_RDWR), 0x40085203ul, NULL))

// TCP ports. (A kernel before landlock's ABI 4 lets these pass: they are in its own empty network.)
TRY(bind_web, "port: bind 80", bound(AF_INET, 80))
TRY(bind_other, "port: bind 9090", bound(AF_INET, 9090))
TRY(bind_proxy, "port: bind the proxy's", bound(AF_INET, 3128))
TRY(bind_six, "port: bind 9090 of IPv6", bound(AF_INET6, 9090))
TRY(connect_web, "port: connect 80", holds(connected(80) == -1 && errno != ECONNREFUSED))
// Connections that it never accepts would count against nobody.
TRY(connect_own, "port: connect its own", holds(connected(8080) == -1 && errno != ECONNREFUSED))
TRY(connect_other, "port: connect 9090", holds(connected(9090) == -1 && errno != ECONNREFUSED))
