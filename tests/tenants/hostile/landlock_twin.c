// The same, where it has the right to: all of it inside /tmp.
#include "probe.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

static int own(const char *path) { return close(open(path, O_CREAT | O_WRONLY, 0600)); }

PROBE(reparent, "rename into another folder") {
    mkdir("/tmp/a", 0700);
    mkdir("/tmp/b", 0700);
    own("/tmp/a/f");
    return rename("/tmp/a/f", "/tmp/b/f");
}
TRY(relink, "hard link into another folder", link("/tmp/b/f", "/tmp/a/g"))
TRY(swap, "exchange two files", (own("/tmp/x"), own("/tmp/y"), renameat2(AT_FDCWD, "/tmp/x", AT_FDCWD, "/tmp/y", RENAME_EXCHANGE)))
TRY(move_folder, "move a folder", rename("/tmp/b", "/tmp/a/b"))
TRY(shorten, "truncate", truncate("/tmp/x", 0))
TRY(shorten_open, "O_TRUNC", open("/tmp/x", O_WRONLY | O_TRUNC))
TRY(fifo, "a fifo", syscall(SYS_mknod, "/tmp/fifo", S_IFIFO | 0600, 0) == -1 && errno == EPERM ? 0 : -1)
TRY(no_name, "a file without a name, given one", ({
        int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
        fd < 0 ? -1 : close(fd);
    }))
TRY(above_moved, "a moved folder goes on", ({
        mkdir("/tmp/p", 0700);
        mkdir("/tmp/p/q", 0700);
        int q = open("/tmp/p/q", O_PATH | O_DIRECTORY);
        rename("/tmp/p/q", "/tmp/r");
        openat(q, "new", O_CREAT | O_WRONLY, 0600);
    }))
TRY(remove_all, "remove", (unlink("/tmp/r/new"), rmdir("/tmp/r")))
TRY(times, "utimes", utimes("/tmp/x", NULL))
TRY(read_etc, "read its /etc/passwd", open("/etc/passwd", O_RDONLY))
