//! Wall: the network. The namespace is empty; loopback and the sockets are for the supervisor.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use cloister_ipc::launch::{Failure, NetworkSpec, PROXY_PORT, Wall};
use rustix::net::{AddressFamily, SocketAddrV4, SocketFlags, SocketType, bind, listen, socket_with};

use super::{Raising, stage};
use crate::failure::wall;

/// Connections that wait for the supervisor to accept them.
const BACKLOG: i32 = 128;

/// Sockets that were made inside, for the supervisor: the proxy's listening one, then unconnected
/// ones. Empty without a network.
#[derive(Debug)]
pub struct Sockets(pub Vec<OwnedFd>);

impl Raising<stage::Rooted> {
    /// Brings loopback up and makes the sockets; nothing at all for a Worker without network.
    ///
    /// # Errors
    /// The step that failed.
    pub fn make_network(
        self,
        network: Option<NetworkSpec>,
    ) -> Result<(Raising<stage::Networked>, Sockets), Failure> {
        let mut sockets = Vec::new();
        if let Some(network) = network {
            let listener = tcp().map_err(wall(Wall::Network, "making a socket"))?;
            cloister_sys::loopback_up(listener.as_fd()).map_err(wall(Wall::Network, "bringing lo up"))?;
            bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROXY_PORT))
                .map_err(wall(Wall::Network, format!("binding 127.0.0.1:{PROXY_PORT}")))?;
            listen(&listener, BACKLOG).map_err(wall(Wall::Network, "listening for the proxy"))?;
            sockets.push(listener);
            for _ in 0..network.sockets {
                sockets.push(tcp().map_err(wall(Wall::Network, "making a socket"))?);
            }
        }
        Ok((self.advance(), Sockets(sockets)))
    }
}

/// A non-blocking TCP socket.
pub(crate) fn tcp() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
}
