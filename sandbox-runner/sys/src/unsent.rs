//! A bound on what a TCP socket keeps unsent.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::check;

/// Has `socket` take no more than `bytes` that it has not sent (`TCP_NOTSENT_LOWAT`, tcp(7)): what its peer does not
/// read then waits with whoever writes it, and the socket is writable again as soon as the peer makes progress.
///
/// # Errors
/// The kernel's; not a TCP socket.
pub fn bound_unsent(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<u32>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a live u32, which the kernel only reads.
    let returned = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            length,
        )
    };
    check(returned.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn an_unread_socket_takes_little_more_than_the_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_reader, _) = listener.accept().unwrap();
        super::bound_unsent(&sender, 64 << 10).unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut taken = 0;
        while let Ok(count) = sender.write(&[0; 16 << 10]) {
            taken += count;
        }
        // What the reader's socket holds, and the bound; without it 2.5 MiB and more.
        assert!(taken < 1 << 20, "{taken}");
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(super::bound_unsent(&pair, 1).is_err());
    }
}
