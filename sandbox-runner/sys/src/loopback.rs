//! The loopback interface.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `IFF_UP | IFF_RUNNING` (netdevice(7)), in the field's own type.
const UP_AND_RUNNING: libc::c_short = 0x41;

/// Brings `lo` up in the network namespace of `socket` (any internet socket).
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: ifreq is integers, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::from_ne_bytes([*from]); // signed on x86_64, not on aarch64
    }
    request.ifr_ifru.ifru_flags = UP_AND_RUNNING;
    // SAFETY: the structure is the one this request takes and outlives the call.
    super::check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }.into())
        .map(drop)
}
