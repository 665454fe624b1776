// Writes into /tmp and waits, or looks for what another wrote and for another's program (argv[2]).
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void writes(void) {
    int fd = open("/tmp/secret", O_CREAT | O_WRONLY, 0666);
    if (fd < 0 || write(fd, "x", 1) != 1) _exit(3);
    puts("written");
    fflush(stdout);
}
static void looks(const char *program) {
    int found = 0;
    DIR *folder = opendir("/tmp");
    for (struct dirent *entry; folder && (entry = readdir(folder));)
        if (entry->d_name[0] != '.') found = printf("/tmp/%s\n", entry->d_name);
    struct stat about;
    if (*program && stat(program, &about) == 0) found = puts(program);
    if (!found) puts("nothing");
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "look")) writes();
    if (strcmp(what, "write")) looks(argc > 2 ? argv[2] : "");
    else
        for (;;) pause();
    return 0;
}
