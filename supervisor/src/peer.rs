//! Whom an address stands for, where something is shared out among clients.

use std::net::IpAddr;

/// Of an IPv6 address, the network.
const NETWORK_BITS: u128 = u128::MAX << 64;

/// One address for all that one client has: whoever has one of an IPv6 network has all of them, and whoever runs on
/// this machine all of its loopback.
pub(crate) fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & NETWORK_BITS).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_client_has_is_one() {
        for (address, whose) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("127.8.9.10", "127.0.0.1"),
            ("::1", "127.0.0.1"),
        ] {
            assert_eq!(peer(address.parse().unwrap()).to_string(), whose);
        }
    }
}
