//! From a socket in the Worker's network namespace to a connection.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;

use crate::pool::Process;

/// First and longest wait between two tries.
const FIRST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(20);

/// Connects, trying again while the port is closed.
pub(super) async fn persist(process: &dyn Process, address: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = process.socket().await?;
    let mut wait = FIRST;
    loop {
        match attempt(socket, address).await? {
            Ok(stream) => return Ok(stream),
            Err(back) => socket = back,
        }
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(LONGEST);
    }
}

/// Connects once.
pub(super) async fn once(process: &dyn Process, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = process.socket().await?;
    attempt(socket, address).await?.map_err(|_| io::ErrorKind::ConnectionRefused.into())
}

/// One try; gives the socket back when it was refused.
async fn attempt(socket: OwnedFd, address: SocketAddr) -> io::Result<Result<TcpStream, OwnedFd>> {
    let pending = match rustix::net::connect(&socket, &address) {
        Ok(()) => false,
        Err(Errno::INPROGRESS) => true,
        // ECONNABORTED: the refusal before was taken from the socket already; it is fresh now.
        Err(Errno::CONNREFUSED | Errno::CONNABORTED) => return Ok(Err(socket)),
        Err(error) => return Err(error.into()),
    };
    let stream = StdStream::from(socket);
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    if pending {
        stream.writable().await?;
        match stream.take_error()? {
            None => {}
            Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Ok(Err(stream.into_std()?.into()));
            }
            Some(error) => return Err(error),
        }
    }
    stream.set_nodelay(true)?;
    Ok(Ok(stream))
}
