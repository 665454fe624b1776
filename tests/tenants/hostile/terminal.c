// Its output is a terminal: types on it, takes it, changes how it works.
#include "probe.h"
#include <sys/ioctl.h>
#include <termios.h>

TRY(control, "TIOCSCTTY", syscall(SYS_ioctl, 1, 0x540eul, 0))
TRY(inject, "TIOCSTI", syscall(SYS_ioctl, 1, 0x5412ul, "x"))
TRY(inject_high, "TIOCSTI with high bits", syscall(SYS_ioctl, 1, 0x100005412ul, "x"))
TRY(inject_top, "TIOCSTI with the top bit", syscall(SYS_ioctl, 1, 0xffffffff00005412ul, "x"))
TRY(discipline, "TIOCSETD", syscall(SYS_ioctl, 1, 0x5423ul, &(int){0}))
TRY(peer, "TIOCGPTPEER", syscall(SYS_ioctl, 1, 0x5441ul, O_RDWR))
TRY(exclusive, "TIOCEXCL", syscall(SYS_ioctl, 1, 0x540cul, 0))
TRY(not_exclusive, "TIOCNXCL", syscall(SYS_ioctl, 1, 0x540dul, 0))
TRY(foreground, "TIOCSPGRP", syscall(SYS_ioctl, 1, 0x5410ul, &(int){getpid()}))
