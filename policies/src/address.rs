//! Which IP addresses are somebody else's server on the internet, and which are not.
//!
//! A name can point anywhere, so an address is judged after the name was resolved, and only the
//! address that was judged is dialled. Whatever is not plainly *global unicast* is refused unless a
//! rule names its network. The lists are IANA's special-purpose registries, read narrowly: what
//! they leave undecided counts as not global.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What kind of address one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Global unicast: a server on the internet.
    Global,
    /// `0.0.0.0/8`, `::`: this host on this network.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// `10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`.
    Private,
    /// `fc00::/7`; holds the metadata service of some clouds.
    UniqueLocal,
    /// `169.254.0.0/16`, `fe80::/10`; holds the metadata service of most clouds.
    LinkLocal,
    /// `fec0::/10`, deprecated.
    SiteLocal,
    /// `100.64.0.0/10`: carrier-grade NAT; holds the metadata service of some clouds.
    SharedNat,
    /// `168.63.129.16`: a cloud's own host service behind a public address.
    CloudPlatform,
    /// `192.0.0.0/24`, `2001::/23`: IETF protocol assignments.
    ProtocolAssignment,
    /// `192.0.2.0/24`, `198.51.100.0/24`, `203.0.113.0/24`, `2001:db8::/32`, `3fff::/20`.
    Documentation,
    /// `198.18.0.0/15`, `2001:2::/48`.
    Benchmarking,
    /// `192.88.99.0/24`: 6to4 relays, deprecated.
    RelayAnycast,
    /// `224.0.0.0/4`, `ff00::/8`.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// `240.0.0.0/4`, and every IPv6 address outside `2000::/3` that is nothing else.
    Reserved,
    /// `::ffff:0:0/96`: an IPv4 address in IPv6 clothes.
    V4Mapped,
    /// `::/96`: the same, deprecated.
    V4Compatible,
    /// `::ffff:0:0:0/96`: the same, translated.
    V4Translated,
    /// `2002::/16`.
    SixToFour,
    /// `2001::/32`.
    Teredo,
    /// `64:ff9b::/96`, `64:ff9b:1::/48`.
    Nat64,
    /// Interface identifier `0:5efe` or `200:5efe`.
    Isatap,
    /// An address of this very host.
    Own,
}

impl Kind {
    /// In words, to follow "is".
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Global => "a global address",
            Self::Unspecified => "an address of this host on this network",
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::UniqueLocal => "a unique local address",
            Self::LinkLocal => "a link-local address",
            Self::SiteLocal => "a site-local address",
            Self::SharedNat => "a carrier-grade NAT address",
            Self::CloudPlatform => "a cloud's host service",
            Self::ProtocolAssignment => "an IETF protocol assignment",
            Self::Documentation => "a documentation address",
            Self::Benchmarking => "a benchmarking address",
            Self::RelayAnycast => "a 6to4 relay address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
            Self::V4Mapped => "an IPv4-mapped address",
            Self::V4Compatible => "an IPv4-compatible address",
            Self::V4Translated => "an IPv4-translated address",
            Self::SixToFour => "a 6to4 address",
            Self::Teredo => "a Teredo address",
            Self::Nat64 => "a NAT64 address",
            Self::Isatap => "an ISATAP address",
            Self::Own => "an address of this host itself",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

/// An address that may not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}")]
pub struct Refused {
    /// The address; the inner one when an IPv4 address inside an IPv6 one is what is refused.
    pub address: IpAddr,
    /// What it is.
    pub kind: Kind,
}

/// Whether `address` may be dialled: it is global and not one of `own`, or one of `networks`
/// contains it. One of `own` that is not loopback must be named by itself (`/32`, `/128`): a rule for
/// the network around this host does not mean this host. An IPv6 address that carries an IPv4 one
/// needs both to be permitted.
///
/// # Errors
/// [`Refused`] says which address and why.
pub fn permit(address: IpAddr, own: &[IpAddr], networks: &[IpNet]) -> Result<(), Refused> {
    let kind = match classify(address) {
        Kind::Loopback => Kind::Loopback,
        _ if own.contains(&address) => Kind::Own,
        kind => kind,
    };
    let names = |network: &IpNet| {
        network.contains(&address) && (kind != Kind::Own || network.prefix_len() == network.max_prefix_len())
    };
    if kind != Kind::Global && !networks.iter().any(names) {
        return Err(Refused { address, kind });
    }
    match embedded(address) {
        Some(inner) => permit(IpAddr::V4(inner), own, networks),
        None => Ok(()),
    }
}

/// The kind of an address; [`Kind::Own`] is only known to [`permit`].
#[must_use]
pub fn classify(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

fn classify_v4(address: Ipv4Addr) -> Kind {
    match address.octets() {
        [0, ..] => Kind::Unspecified,
        [127, ..] => Kind::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Kind::Private,
        [169, 254, ..] => Kind::LinkLocal,
        [100, 64..=127, ..] => Kind::SharedNat,
        [168, 63, 129, 16] => Kind::CloudPlatform,
        [192, 0, 0, _] => Kind::ProtocolAssignment,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Kind::Documentation,
        [198, 18..=19, ..] => Kind::Benchmarking,
        [192, 88, 99, _] => Kind::RelayAnycast,
        [224..=239, ..] => Kind::Multicast,
        [255, 255, 255, 255] => Kind::Broadcast,
        [240..=255, ..] => Kind::Reserved,
        _ => Kind::Global,
    }
}

fn classify_v6(address: Ipv6Addr) -> Kind {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Loopback,
        [0, 0, 0, 0, 0, 0, ..] => Kind::V4Compatible,
        [0, 0, 0, 0, 0, 0xffff, ..] => Kind::V4Mapped,
        [0, 0, 0, 0, 0xffff, 0, ..] => Kind::V4Translated,
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => Kind::Nat64,
        [0xfc00..=0xfdff, ..] => Kind::UniqueLocal,
        [0xfe80..=0xfebf, ..] => Kind::LinkLocal,
        [0xfec0..=0xfeff, ..] => Kind::SiteLocal,
        [0xff00..=0xffff, ..] => Kind::Multicast,
        [0x2001, 0, ..] => Kind::Teredo,
        [0x2001, 2, 0, ..] => Kind::Benchmarking,
        [0x2001, 0..=0x1ff, ..] => Kind::ProtocolAssignment,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Documentation,
        [0x2002, ..] => Kind::SixToFour,
        [0x2000..=0x3fff, _, _, _, 0 | 0x200, 0x5efe, ..] => Kind::Isatap,
        [0x2000..=0x3fff, ..] => Kind::Global,
        _ => Kind::Reserved,
    }
}

/// The IPv4 address that an IPv6 one carries in one of the known forms.
#[must_use]
pub fn embedded(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [_, a, b, .., c, d] = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match classify_v6(address) {
        Kind::V4Mapped | Kind::V4Compatible | Kind::V4Translated | Kind::Nat64 | Kind::Isatap => {
            Some(join(c, d))
        }
        Kind::SixToFour => Some(join(a, b)),
        // Teredo carries the client's address inverted.
        Kind::Teredo => Some(join(!c, !d)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> Kind {
        classify(text.parse().unwrap())
    }

    #[test]
    fn every_special_network_at_its_edges() {
        let table = [
            ("0.0.0.0", Kind::Unspecified),
            ("0.255.255.255", Kind::Unspecified),
            ("1.0.0.0", Kind::Global),
            ("9.255.255.255", Kind::Global),
            ("10.0.0.0", Kind::Private),
            ("10.255.255.255", Kind::Private),
            ("11.0.0.0", Kind::Global),
            ("100.63.255.255", Kind::Global),
            ("100.64.0.0", Kind::SharedNat),
            ("100.100.100.200", Kind::SharedNat),
            ("100.127.255.255", Kind::SharedNat),
            ("100.128.0.0", Kind::Global),
            ("127.0.0.1", Kind::Loopback),
            ("127.255.255.255", Kind::Loopback),
            ("168.63.129.15", Kind::Global),
            ("168.63.129.16", Kind::CloudPlatform),
            ("169.253.255.255", Kind::Global),
            ("169.254.169.254", Kind::LinkLocal),
            ("169.255.0.0", Kind::Global),
            ("172.15.255.255", Kind::Global),
            ("172.16.0.0", Kind::Private),
            ("172.31.255.255", Kind::Private),
            ("172.32.0.0", Kind::Global),
            ("192.0.0.192", Kind::ProtocolAssignment),
            ("192.0.1.0", Kind::Global),
            ("192.0.2.1", Kind::Documentation),
            ("192.88.99.1", Kind::RelayAnycast),
            ("192.167.255.255", Kind::Global),
            ("192.168.0.1", Kind::Private),
            ("192.169.0.0", Kind::Global),
            ("198.17.255.255", Kind::Global),
            ("198.18.0.0", Kind::Benchmarking),
            ("198.19.255.255", Kind::Benchmarking),
            ("198.20.0.0", Kind::Global),
            ("198.51.100.7", Kind::Documentation),
            ("203.0.113.7", Kind::Documentation),
            ("223.255.255.255", Kind::Global),
            ("224.0.0.1", Kind::Multicast),
            ("239.255.255.255", Kind::Multicast),
            ("240.0.0.0", Kind::Reserved),
            ("255.255.255.254", Kind::Reserved),
            ("255.255.255.255", Kind::Broadcast),
            ("::", Kind::Unspecified),
            ("::1", Kind::Loopback),
            ("::2", Kind::V4Compatible),
            ("::10.0.0.1", Kind::V4Compatible),
            ("::ffff:8.8.8.8", Kind::V4Mapped),
            ("::ffff:0:10.0.0.1", Kind::V4Translated),
            ("64:ff9b::8.8.8.8", Kind::Nat64),
            ("64:ff9b:1::a9fe:a9fe", Kind::Nat64),
            ("64:ff9b:1:ffff::a9fe:a9fe", Kind::Nat64),
            ("100::1", Kind::Reserved),
            ("1fff::1", Kind::Reserved),
            ("2001::1", Kind::Teredo),
            ("2001:2::1", Kind::Benchmarking),
            ("2001:20::1", Kind::ProtocolAssignment),
            ("2001:1ff:ffff::1", Kind::ProtocolAssignment),
            ("2001:200::1", Kind::Global),
            ("2001:db8::1", Kind::Documentation),
            ("2002:0a00:0001::1", Kind::SixToFour),
            ("2606:4700::1111", Kind::Global),
            ("2606:4700::5efe:10.0.0.1", Kind::Isatap),
            ("2606:4700::200:5efe:10.0.0.1", Kind::Isatap),
            ("3fff::1", Kind::Documentation),
            ("3fff:1000::1", Kind::Global),
            ("4000::1", Kind::Reserved),
            ("5f00::1", Kind::Reserved),
            ("fbff::1", Kind::Reserved),
            ("fc00::1", Kind::UniqueLocal),
            ("fd00:ec2::254", Kind::UniqueLocal),
            ("fe80::1", Kind::LinkLocal),
            ("febf::1", Kind::LinkLocal),
            ("fec0::1", Kind::SiteLocal),
            ("ff02::1", Kind::Multicast),
        ];
        for (text, expected) in table {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    #[test]
    fn a_network_permits_only_what_it_contains() {
        let ten = ["10.0.0.0/8".parse().unwrap()];
        assert!(permit("10.1.2.3".parse().unwrap(), &[], &ten).is_ok());
        assert!(permit("192.168.0.1".parse().unwrap(), &[], &ten).is_err());
        assert!(permit("8.8.8.8".parse().unwrap(), &[], &ten).is_ok());
        assert!(permit("::ffff:10.1.2.3".parse().unwrap(), &[], &ten).is_err());
    }

    #[test]
    fn an_embedded_address_is_judged_too() {
        let nat64 = ["64:ff9b::/96".parse().unwrap()];
        assert!(permit("64:ff9b::8.8.8.8".parse().unwrap(), &[], &nat64).is_ok());
        let refused = permit("64:ff9b::169.254.169.254".parse().unwrap(), &[], &nat64).unwrap_err();
        assert_eq!(refused.kind, Kind::LinkLocal);
        let both = ["2002::/16".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        assert!(permit("2002:0a00:0001::1".parse().unwrap(), &[], &both).is_ok());
        assert_eq!(embedded("2001:0:1:2:3:4:f5ff:fffe".parse().unwrap()), Some(Ipv4Addr::new(10, 0, 0, 1)));
    }

    #[test]
    fn the_hosts_own_address_is_refused_unless_named() {
        let own: [IpAddr; 1] = ["8.8.4.4".parse().unwrap()];
        assert_eq!(permit(own[0], &own, &[]).unwrap_err().kind, Kind::Own);
        assert!(permit(own[0], &own, &["8.8.4.4/32".parse().unwrap()]).is_ok());
        assert!(permit(own[0], &own, &["8.8.4.0/24".parse().unwrap()]).is_err());
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(permit(loopback, &[loopback], &["127.0.0.0/8".parse().unwrap()]).is_ok());
        let mapped = "::ffff:8.8.4.4".parse().unwrap();
        assert_eq!(permit(mapped, &own, &["::ffff:0:0/96".parse().unwrap()]).unwrap_err().kind, Kind::Own);
    }

    proptest! {
        #[test]
        fn std_agrees_where_it_has_an_opinion(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let special = address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_broadcast() || address.is_documentation() || address.is_multicast()
                || address.is_unspecified();
            if special {
                prop_assert_ne!(classify_v4(address), Kind::Global);
            }
        }

        #[test]
        fn no_ipv6_form_smuggles_a_refused_ipv4(bits: u32, tail: u16) {
            let inner = Ipv4Addr::from(bits);
            let [a, b, c, d] = inner.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let forms = [
                inner.to_ipv6_mapped(),
                inner.to_ipv6_compatible(),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, tail),
                Ipv6Addr::new(0x2001, 0, 0, 0, 0, tail, !high, !low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 1, tail, 0, 0, high, low),
                Ipv6Addr::new(0x2606, 0x4700, 0, tail, 0, 0x5efe, high, low),
            ];
            for form in forms {
                prop_assert!(permit(form.into(), &[], &[]).is_err(), "{form}");
                // Even where the form itself is named, the inner address decides.
                let any = ["2000::/3".parse().unwrap(), "::/3".parse().unwrap()];
                prop_assert_eq!(
                    permit(form.into(), &[], &any).is_ok(),
                    classify_v4(inner) == Kind::Global || embedded(form.into()).is_none(),
                    "{}", form
                );
            }
        }

        #[test]
        fn permitted_without_networks_means_global(bits: u128) {
            let address = IpAddr::V6(Ipv6Addr::from(bits));
            prop_assert_eq!(permit(address, &[], &[]).is_ok(), classify(address) == Kind::Global);
        }
    }
}
