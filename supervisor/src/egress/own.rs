//! The addresses of this host.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a look at the interfaces is good for.
const FRESH: Duration = Duration::from_secs(5);

/// The addresses of this host: the configured ones and those of the interfaces.
#[derive(Debug)]
pub(crate) struct OwnAddresses {
    configured: Vec<IpAddr>,
    seen: Mutex<(Instant, Arc<[IpAddr]>)>,
}

impl OwnAddresses {
    /// # Errors
    /// When the interfaces can't be listed.
    pub(crate) fn new(configured: Vec<IpAddr>) -> std::io::Result<Self> {
        let seen = look(&configured)?;
        Ok(Self { configured, seen: Mutex::new((Instant::now(), seen)) })
    }

    /// The addresses; interfaces that came less than five seconds ago may be missing.
    pub(crate) fn list(&self) -> Arc<[IpAddr]> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0.elapsed() >= FRESH {
            match look(&self.configured) {
                Ok(addresses) => *seen = (Instant::now(), addresses),
                Err(error) => {
                    tracing::error!(target: "egress", %error, "cannot list the host's addresses, those seen last stay");
                }
            }
        }
        Arc::clone(&seen.1)
    }
}

fn look(configured: &[IpAddr]) -> std::io::Result<Arc<[IpAddr]>> {
    let mut addresses = configured.to_vec();
    for interface in nix::ifaddrs::getifaddrs()? {
        let Some(address) = interface.address else { continue };
        if let Some(v4) = address.as_sockaddr_in() {
            addresses.push(v4.ip().into());
        } else if let Some(v6) = address.as_sockaddr_in6() {
            addresses.push(v6.ip().into());
        }
    }
    Ok(addresses.into())
}

#[cfg(test)]
mod tests {
    use super::OwnAddresses;

    #[test]
    fn interfaces_and_configured_ones() {
        let public = "203.0.113.9".parse().unwrap();
        let own = OwnAddresses::new(vec![public]).unwrap().list();
        assert!(own.contains(&public));
        assert!(own.contains(&"127.0.0.1".parse().unwrap()));
    }
}
