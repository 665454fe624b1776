// What an honest program does with files: its own /tmp, and the harmless devices.
#include "probe.h"
#include <sys/mman.h>
#include <sys/stat.h>

TRY(create, "create in /tmp", open("/tmp/a", O_CREAT | O_RDWR, 0600))
TRY(mkdir_tmp, "mkdir in /tmp", mkdir("/tmp/d", 0700))
TRY(rename_tmp, "rename in /tmp", rename("/tmp/a", "/tmp/d/b"))
TRY(link_tmp, "hard link in /tmp", link("/tmp/d/b", "/tmp/c"))
TRY(symlink_tmp, "symlink in /tmp", symlink("d/b", "/tmp/s"))
TRY(open_symlink, "open through it", open("/tmp/s", O_RDONLY))
TRY(chmod_tmp, "chmod in /tmp", chmod("/tmp/c", 0640))
TRY(tmpfile_tmp, "O_TMPFILE in /tmp", open("/tmp", O_TMPFILE | O_RDWR, 0600))
TRY(unlink_tmp, "unlink in /tmp", unlink("/tmp/c"))
TRY(chdir_tmp, "chdir to /tmp", chdir("/tmp"))
PROBE(mapped, "map a file of /tmp, shared") {
    int fd = open("/tmp/m", O_CREAT | O_RDWR, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0) return -1;
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return -1;
    page[0] = 'x';
    return msync(page, 4096, MS_SYNC);
}
PROBE(locked, "lock a file, as databases do") {
    struct flock lock = {.l_type = F_WRLCK, .l_len = 1};
    int fd = open("/tmp/lock", O_CREAT | O_RDWR, 0600);
    if (fcntl(fd, F_SETLK, &lock) < 0 || fcntl(fd, F_GETLK, &lock) < 0) return -1;
    return lock.l_type == F_UNLCK ? 0 : -1;
}
TRY(write_null, "write /dev/null", write(open("/dev/null", O_WRONLY), "x", 1))
PROBE(read_zero, "read /dev/zero") {
    char byte = 1;
    return read(open("/dev/zero", O_RDONLY), &byte, 1) == 1 && byte == 0 ? 0 : -1;
}
PROBE(read_urandom, "read /dev/urandom") {
    char bytes[16];
    return read(open("/dev/urandom", O_RDONLY), bytes, sizeof bytes) == 16 ? 0 : -1;
}
