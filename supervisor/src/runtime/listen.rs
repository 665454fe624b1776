//! Listening sockets, one a shard and address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt};

/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// Bound sockets, to be handed to the shards. Bind them before privileges are dropped.
#[derive(Debug, Default)]
pub struct Listeners {
    addresses: Vec<SocketAddr>,
    shards: Vec<Vec<TcpListener>>,
}

impl Listeners {
    /// Binds each address once for each of `shards`. Port 0 takes a free port, the same for all.
    ///
    /// # Errors
    /// An address can't be bound: the error names it.
    pub fn bind(addresses: &[SocketAddr], shards: NonZeroUsize) -> io::Result<Self> {
        let mut listeners = Self { addresses: Vec::new(), shards: Vec::new() };
        listeners.shards.resize_with(shards.get(), Vec::new);
        for &address in addresses {
            listeners.add(address).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
            })?;
        }
        Ok(listeners)
    }

    fn add(&mut self, address: SocketAddr) -> io::Result<()> {
        // SO_REUSEPORT lets another process of the same user share a port unseen: see first that
        // nobody has it.
        let probe = open(address, false)?;
        bind(&probe, &address)?;
        drop(probe);
        let mut address = address;
        for shard in &mut self.shards {
            let socket = open(address, true)?;
            bind(&socket, &address)?;
            listen(&socket, BACKLOG)?;
            let bound = getsockname(&socket)?;
            address = SocketAddr::try_from(bound).map_err(io::Error::from)?;
            shard.push(TcpListener::from(socket));
        }
        self.addresses.push(address);
        Ok(())
    }

    /// The addresses that are really bound.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The sockets of a shard; empty the second time.
    #[must_use]
    pub fn take(&mut self, shard: usize) -> Vec<TcpListener> {
        self.shards.get_mut(shard).map(std::mem::take).unwrap_or_default()
    }
}

fn open(address: SocketAddr, shared: bool) -> io::Result<std::os::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_a_port_and_others_are_refused_it() {
        let two = NonZeroUsize::new(2).unwrap();
        let mut listeners = Listeners::bind(&["127.0.0.1:0".parse().unwrap()], two).unwrap();
        let address = listeners.addresses()[0];
        assert_ne!(address.port(), 0);
        assert_eq!(listeners.take(0)[0].local_addr().unwrap(), address);
        assert_eq!(listeners.take(1).len(), 1);
        assert!(listeners.take(1).is_empty());
        let _kept = Listeners::bind(&["127.0.0.1:0".parse().unwrap()], two).unwrap();
        let taken = _kept.addresses()[0];
        let error = Listeners::bind(&[taken], two).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&taken.to_string()));
    }
}
