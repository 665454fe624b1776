//! Descriptors by number.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::FreshChild;

impl FreshChild {
    /// Closes every descriptor but `keep`. What the parent's objects held is closed too; the child
    /// uses none of them (see [`FreshChild`]).
    pub fn close_all_but(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut numbers: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
        numbers.sort_unstable();
        let mut from: libc::c_uint = 0;
        for number in numbers {
            let number = number.cast_unsigned();
            if number > from {
                close_range(from, number - 1)?;
            }
            from = from.max(number + 1);
        }
        close_range(from, libc::c_uint::MAX)
    }

    /// Closes all descriptors from `first` to `last`.
    pub fn close_between(&self, first: u32, last: u32) -> io::Result<()> {
        close_range(first, last)
    }
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: no memory is passed. Callers hold a FreshChild, so no object of this process relies on
    // what is closed.
    super::check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Makes `number` a copy of `descriptor`, closing what `number` was. Only in a fresh child, which
/// decides what every number is.
pub fn place(
    _child: &FreshChild,
    descriptor: BorrowedFd<'_>,
    number: RawFd,
    close_on_exec: bool,
) -> io::Result<BorrowedFd<'static>> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: no memory is passed; the FreshChild stands for the right to decide about `number`.
    super::check(unsafe { libc::dup3(descriptor.as_raw_fd(), number, flags) }.into())?;
    // SAFETY: it is open now and, being nobody's, stays open until exec or exit.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Standard input as an owned descriptor, once.
#[derive(Debug)]
pub struct Stdin;

static STDIN_TAKEN: AtomicBool = AtomicBool::new(false);

impl Stdin {
    /// Takes it: a copy at another number with close-on-exec; number 0 becomes `/dev/null`.
    pub fn take() -> io::Result<OwnedFd> {
        if STDIN_TAKEN.swap(true, Ordering::Relaxed) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // SAFETY: no memory is passed.
        let copy = super::check(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) }.into())?;
        let copy = RawFd::try_from(copy).map_err(io::Error::other)?;
        // SAFETY: fcntl just made it, so nobody else owns it.
        let copy = unsafe { OwnedFd::from_raw_fd(copy) };
        let null = std::fs::File::open("/dev/null")?;
        // SAFETY: no memory is passed; standard input is read by nobody but the taker of this copy.
        super::check(unsafe { libc::dup2(null.as_raw_fd(), 0) }.into())?;
        Ok(copy)
    }
}

impl FreshChild {
    /// Borrows `number`, which must be open, until exec or exit.
    pub fn borrowed(&self, number: RawFd) -> io::Result<BorrowedFd<'static>> {
        // SAFETY: no memory is passed.
        super::check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
        // SAFETY: it is open, and the FreshChild stands for the right to decide about numbers: the
        // child keeps this one open until exec or exit.
        Ok(unsafe { BorrowedFd::borrow_raw(number) })
    }
}

/// Makes `number` what `descriptor` is, and keeps it open until exec or exit.
pub fn keep(child: &FreshChild, descriptor: OwnedFd, number: RawFd) -> io::Result<()> {
    if descriptor.as_raw_fd() == number {
        disown(child, descriptor);
        return Ok(());
    }
    place(child, descriptor.as_fd(), number, false).map(drop)
}

/// Lets go of an object whose number is no longer its own, or must stay open.
pub fn disown(_child: &FreshChild, descriptor: OwnedFd) {
    let _ = descriptor.into_raw_fd();
}
