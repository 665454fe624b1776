// A Worker that tells what it can and can't do. Linked statically, and dynamically.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void tell(const char *what, long returned) {
    printf("%s=%s\n", what, returned >= 0 ? "ok" : strerrorname_np(errno));
}

static void report(void) {
    printf("pid=%d\nuid=%d\n", getpid(), getuid());
    printf("dumpable=%d\nno_new_privs=%d\n", prctl(PR_GET_DUMPABLE), prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    char cwd[256];
    printf("cwd=%s\n", getcwd(cwd, sizeof cwd) ? cwd : "none");
    tell("shadow", open("/etc/shadow", O_RDONLY));
    tell("list_root", open("/", O_RDONLY | O_DIRECTORY));
    tell("read_passwd", open("/etc/passwd", O_RDONLY));
    tell("write_root", open("/x", O_WRONLY | O_CREAT, 0600));
    tell("write_tmp", open("/tmp/x", O_WRONLY | O_CREAT, 0600));
    tell("read_app", open("/app/dir/hello.txt", O_RDONLY));
    tell("write_app", open("/app/new", O_WRONLY | O_CREAT, 0600));
    tell("change_app", open("/app/dir/hello.txt", O_WRONLY));
    tell("proc_self", open("/proc/self/status", O_RDONLY));
    tell("proc_cpuinfo", open("/proc/cpuinfo", O_RDONLY));
    tell("null", open("/dev/null", O_RDWR));
    tell("netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    tell("udp", socket(AF_INET, SOCK_DGRAM, 0));
    tell("memfd", syscall(SYS_memfd_create, "x", 0));
    tell("exec", execl("/proc/self/exe", "x", (char *)0));
    tell("clone3", syscall(SYS_clone3, 0, 0));
    tell("wx", mprotect(mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096,
                        PROT_READ | PROT_EXEC));
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    tell("fork", pid);
    for (int fd = 0; fd < 2000; fd++) {
        struct stat st;
        if (fd > 3 && fstat(fd, &st) == 0 && fcntl(fd, F_GETFD) >= 0 && fd > 40) printf("leak=%d\n", fd);
    }
    struct rlimit nofile;
    getrlimit(RLIMIT_NOFILE, &nofile);
    printf("nofile=%ld\n", (long)nofile.rlim_max);
    for (char **e = environ; *e; e++) printf("env:%s\n", *e);
}

static void serve(int listener) {
    if (listener < 0) {
        listener = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT")))};
        if (bind(listener, (void *)&at, sizeof at) || listen(listener, 16)) {
            perror("listen");
            exit(1);
        }
        puts("listening");
        fflush(stdout);
    }
    for (;;) {
        int fd = accept(listener, 0, 0);
        if (fd < 0) exit(1);
        char buffer[1024];
        if (read(fd, buffer, sizeof buffer) > 0) {
            const char *answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
            write(fd, answer, strlen(answer));
        }
        close(fd);
    }
}

static long reach(int port, int (*how)(int, const struct sockaddr *, socklen_t), int *fd) {
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return how(*fd, (void *)&at, sizeof at);
}

static void fetch(void) {
    int fd;
    tell("bind_8080", reach(8080, bind, &fd));
    tell("bind_9090", reach(9090, bind, &fd));
    tell("elsewhere", reach(9090, connect, &fd));
    tell("proxy", reach(3128, connect, &fd));
    char buffer[64];
    ssize_t length = read(fd, buffer, sizeof buffer);
    printf("got=%.*s\n", (int)length, buffer);
}

static void *turn(void *unused) {
    (void)unused;
    for (;;) {}
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "report";
    if (!strcmp(mode, "report")) {
        report();
        fflush(stdout);
        return 7;
    } else if (!strcmp(mode, "serve")) {
        serve(-1);
    } else if (!strcmp(mode, "fetch")) {
        fetch();
    } else if (!strcmp(mode, "inherit")) {
        serve(3);
    } else if (!strcmp(mode, "spin")) {
        turn(0);
    } else if (!strcmp(mode, "mount")) {
        mount("none", "/tmp", "tmpfs", 0, 0);
    } else if (!strcmp(mode, "eat")) {
        for (;;) memset(malloc(1 << 20), 1, 1 << 20);
    } else if (!strcmp(mode, "bomb")) {
        signal(SIGCHLD, SIG_IGN);
        int made = 0;
        for (int i = 0; i < 1000; i++) {
            pid_t pid = fork();
            if (pid == 0) for (;;) pause();
            if (pid > 0) made++;
        }
        printf("made=%d\n", made);
        fflush(stdout);
        pause();
    } else if (!strcmp(mode, "control")) {
        char buffer[1024];
        ssize_t length = recv(3, buffer, sizeof buffer, 0);
        printf("heard=%.*s\n", (int)length, buffer);
        tell("say", send(3, "x", 1, MSG_NOSIGNAL));
        fflush(stdout);
        pause();
    }
    return 0;
}
