//! Hosts in one form, so that no spelling of a name slips past a rule.

use std::fmt;
use std::net::IpAddr;

/// A host as rules compare it: a lower-case ASCII name (IDNA) without trailing dot, or an address.
///
/// Parsed as browsers do (WHATWG URL): `0x7f.1`, `017700000001`, `2130706433` and full-width digits
/// are `127.0.0.1`. An IPv4-mapped IPv6 literal is the IPv4 address, since that is what a socket
/// makes of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name.
    Name(String),
    /// An address literal.
    Address(IpAddr),
}

/// Text that is not a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a host: {reason}")]
pub struct HostError {
    /// The text, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Longest name in bytes, without the trailing dot (RFC 1035).
const NAME_BYTES: usize = 253;
/// Longest label in bytes.
const LABEL_BYTES: usize = 63;

impl Host {
    /// Parses a host: a name, an IPv4 address in any form, or an IPv6 address in brackets.
    ///
    /// # Errors
    /// [`HostError`] for anything that could mean different hosts to different readers: percent
    /// signs, zone ids, empty or over-long labels, forbidden characters.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let fail = |reason| HostError { text: text.chars().take(80).collect(), reason };
        if text.is_empty() {
            return Err(fail("it is empty"));
        }
        if text.contains('%') {
            return Err(fail("percent signs and zone ids are not allowed"));
        }
        match url::Host::parse(text) {
            Ok(url::Host::Ipv4(address)) => Ok(Self::Address(address.into())),
            Ok(url::Host::Ipv6(address)) => Ok(Self::Address(IpAddr::V6(address).to_canonical())),
            Ok(url::Host::Domain(name)) => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                if name.len() > NAME_BYTES {
                    return Err(fail("it is longer than 253 bytes"));
                }
                if name.split('.').any(str::is_empty) {
                    return Err(fail("it has an empty label"));
                }
                if name.split('.').any(|label| label.len() > LABEL_BYTES) {
                    return Err(fail("a label is longer than 63 bytes"));
                }
                if name.contains('*') {
                    return Err(fail("it has a `*`"));
                }
                Ok(Self::Name(name.to_ascii_lowercase()))
            }
            Err(_) => Err(fail("it has forbidden characters, or is a malformed address")),
        }
    }

    /// The address, when it is a literal.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::Address(address) => Some(*address),
        }
    }
}

impl fmt::Display for Host {
    /// As in a URL: IPv6 in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A pattern of hosts: one host, `*.` and a name (one or more whole labels in front of it, not the
/// name itself), or `*` for every host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// Every name and every address literal.
    Any,
    /// Exactly this host.
    Exact(Host),
    /// Names below this one.
    Below(String),
}

impl HostPattern {
    /// Parses a pattern; IPv6 addresses with or without brackets.
    ///
    /// # Errors
    /// [`HostError`] when it is none of the three forms.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(parent) = text.strip_prefix("*.") {
            return match Host::parse(parent)? {
                Host::Name(name) => Ok(Self::Below(name)),
                Host::Address(_) => {
                    Err(HostError { text: text.into(), reason: "addresses have no wildcard, use `networks`" })
                }
            };
        }
        if text.contains('*') {
            let reason = "`*` stands alone or for whole labels in front (`*.example.com`)";
            return Err(HostError { text: text.chars().take(80).collect(), reason });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Exact(Host::Address(address.to_canonical())));
        }
        Host::parse(text).map(Self::Exact)
    }

    /// Whether `host` is one of those meant.
    #[must_use]
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(exact), host) => exact == host,
            (Self::Below(parent), Host::Name(name)) => name
                .strip_suffix(parent.as_str())
                .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
            (Self::Below(_), Host::Address(_)) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(host) => host.fmt(f),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(text: &str) -> Host {
        Host::parse(text).unwrap()
    }

    #[test]
    fn every_spelling_of_loopback_is_loopback() {
        for text in [
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0X7F.0x0.0x0.0x1",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.1.",
            "１２７.０.０.１",
            "127。0。0。1",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[0:0:0:0:0:ffff:7f00:0001]",
        ] {
            assert_eq!(host(text), Host::Address([127, 0, 0, 1].into()), "{text}");
        }
        assert_eq!(host("[::1]"), Host::Address("::1".parse().unwrap()));
        assert_eq!(host("[0000:0000::0001]"), host("[::1]"));
    }

    #[test]
    fn every_spelling_of_a_name_is_one_name() {
        let name = Host::Name("example.com".into());
        for text in [
            "example.com",
            "EXAMPLE.com",
            "example.com.",
            "ｅxample.com",
            "example。com",
            "exa\u{ad}mple.com",
        ] {
            assert_eq!(host(text), name, "{text}");
        }
        assert_eq!(host("bücher.example"), host("xn--bcher-kva.example"));
        assert_eq!(host("BÜCHER.example"), host("XN--BCHER-KVA.example"));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "example.com..",
            "exam%70le.com",
            "[fe80::1%25eth0]",
            "[fe80::1%eth0]",
            "[::1",
            "::1",
            "a b",
            "a/b",
            "a\\b",
            "a@b",
            "a:80",
            "a#b",
            "a?b",
            "256.256.256.256",
            "1.2.3.4.5",
            "0x100000000",
            "a\0b",
            "*.example.com",
            "xn--a-.example",
        ] {
            assert!(Host::parse(text).is_err(), "{text:?} is {:?}", Host::parse(text));
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
        assert!(Host::parse(&"a.".repeat(200)).is_err());
    }

    #[test]
    fn a_wildcard_is_whole_labels() {
        let pattern = HostPattern::parse("*.Example.com").unwrap();
        assert!(pattern.matches(&host("a.example.com")));
        assert!(pattern.matches(&host("A.B.EXAMPLE.com.")));
        for text in ["example.com", "badexample.com", "example.com.evil.org", "a.example.org", "10.0.0.1"] {
            assert!(!pattern.matches(&host(text)), "{text}");
        }
        for text in ["a*.example.com", "*a.example.com", "a.*.com", "*.*.com", "*.", "**", "*.10.0.0.1"] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_in_a_pattern_is_every_spelling_of_it() {
        let pattern = HostPattern::parse("10.0.0.1").unwrap();
        assert!(pattern.matches(&host("0xa.1")));
        assert!(pattern.matches(&host("[::ffff:10.0.0.1]")));
        assert!(HostPattern::parse("2001:db8::1").unwrap().matches(&host("[2001:DB8:0::1]")));
    }

    proptest! {
        #[test]
        fn a_parsed_host_parses_to_itself(text in "\\PC{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }

        #[test]
        fn case_and_trailing_dot_never_matter(name in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{0,8}){1,3}", upper: bool, dot: bool) {
            let mut spelled = if upper { name.to_uppercase() } else { name.clone() };
            if dot { spelled.push('.'); }
            prop_assert_eq!(Host::parse(&spelled).unwrap(), Host::Name(name));
        }

        #[test]
        fn numeric_forms_are_addresses(bits: u32) {
            let address = Host::Address(std::net::Ipv4Addr::from(bits).into());
            for text in [format!("{bits}"), format!("0x{bits:x}"), format!("0{bits:o}"),
                         format!("[::ffff:{}]", std::net::Ipv4Addr::from(bits))] {
                prop_assert_eq!(Host::parse(&text).unwrap(), address.clone(), "{}", text);
            }
        }
    }
}
