// What every libc and runtime asks of the kernel.
#include "probe.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <time.h>

TRY(epoll, "epoll", epoll_create1(0))
TRY(event, "eventfd", eventfd(0, 0))
TRY(timer_fd, "timerfd", timerfd_create(CLOCK_MONOTONIC, 0))
PROBE(signals, "signalfd") {
    sigset_t set;
    sigemptyset(&set);
    return signalfd(-1, &set, 0);
}
TRY(random_bytes, "getrandom", getrandom((char[16]){0}, 16, 0))
TRY(names, "uname", uname(&(struct utsname){0}))
TRY(info, "sysinfo", sysinfo(&(struct sysinfo){0}))
TRY(now, "clock_gettime", syscall(SYS_clock_gettime, 0, &(struct timespec){0}))
TRY(sleep_a_little, "nanosleep", nanosleep(&(struct timespec){0, 1000}, NULL))
PROBE(bytes_waiting, "FIONREAD") {
    int pipes[2], count;
    return pipe(pipes) < 0 ? -1 : ioctl(pipes[0], FIONREAD, &count);
}
TRY(copy, "fcntl F_DUPFD", fcntl(1, F_DUPFD_CLOEXEC, 3))
PROBE(not_there, "a call of the future is not there") {
    return syscall(9999) == -1 && errno == ENOSYS ? 0 : -1;
}
