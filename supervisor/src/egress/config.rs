//! `[egress]` of the configuration.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use cloister_policies::egress::{Host, HostError};
use serde::Deserialize;

/// `[egress]` of the configuration. Without a policy folder nothing goes out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Folder of policy files; `None` denies everything.
    pub policy_dir: Option<PathBuf>,
    /// Names that are answered here and not by DNS, like `/etc/hosts`. Their addresses are judged
    /// as any others.
    pub hosts: BTreeMap<HostName, Addresses>,
    /// DNS servers, `address` or `address:port`; empty for those of `/etc/resolv.conf`.
    pub nameservers: Vec<Nameserver>,
    /// Addresses that are this host's although no interface has them (behind a NAT or a load
    /// balancer); the interfaces' own are found by themselves.
    pub own_addresses: Vec<IpAddr>,
    /// Requests and tunnels that a Worker may have open at a time.
    pub worker_requests: NonZeroU32,
    /// Connections to its proxy port that a Worker may have open at a time.
    pub worker_connections: NonZeroU32,
    /// PEM file of certificate authorities to trust besides the public ones.
    pub extra_ca: Option<PathBuf>,
    /// Longest for the resolver, for a connection to one address, and for a TLS handshake,
    /// milliseconds each.
    pub connect_timeout_ms: Millis,
    /// Longest until the head of a response, milliseconds.
    pub response_timeout_ms: Millis,
    /// Longest silence of a body or a tunnel, milliseconds.
    pub idle_timeout_ms: Millis,
}

impl Default for EgressConfig {
    fn default() -> Self {
        Self {
            policy_dir: None,
            hosts: BTreeMap::new(),
            nameservers: Vec::new(),
            own_addresses: Vec::new(),
            worker_requests: NonZeroU32::MIN.saturating_add(255),
            worker_connections: NonZeroU32::MIN.saturating_add(1023),
            extra_ca: None,
            connect_timeout_ms: Millis(5_000),
            response_timeout_ms: Millis(60_000),
            idle_timeout_ms: Millis(60_000),
        }
    }
}

/// A time of 1 ms to one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub struct Millis(u64);

impl Millis {
    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl TryFrom<u64> for Millis {
    type Error = String;

    fn try_from(millis: u64) -> Result<Self, String> {
        const DAY: u64 = 86_400_000;
        if (1..=DAY).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(format!("{millis} ms is out of range, allowed are 1 to {DAY}"))
        }
    }
}

/// A host name in its one form; not an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct HostName(String);

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Host::parse(&text) {
            Ok(Host::Name(name)) => Ok(Self(name)),
            Ok(Host::Address(_)) => Err(format!("{text:?} is an address, a name is needed")),
            Err(error @ HostError { .. }) => Err(error.to_string()),
        }
    }
}

/// One address or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected an IP address or a list of IP addresses")]
pub enum Addresses {
    /// One.
    One(IpAddr),
    /// Several.
    Many(Vec<IpAddr>),
}

impl Addresses {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[IpAddr] {
        match self {
            Self::One(address) => std::slice::from_ref(address),
            Self::Many(addresses) => addresses,
        }
    }
}

/// A DNS server; port 53 unless another is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Nameserver(pub SocketAddr);

impl TryFrom<String> for Nameserver {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        address
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| format!("{text:?} is not a DNS server, allowed are an IP address or address:port"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_configured() {
        let config: EgressConfig = toml::from_str(
            r#"policy_dir = "/p"
            hosts = { "API.test." = "127.0.0.1", b = ["10.0.0.1", "::1"] }
            nameservers = ["1.1.1.1", "127.0.0.1:5353", "[::1]:54"]
            own_addresses = ["203.0.113.9"]
            connect_timeout_ms = 10"#,
        )
        .unwrap();
        let names: Vec<_> = config.hosts.keys().map(HostName::as_str).collect();
        assert_eq!(names, ["api.test", "b"]);
        assert_eq!(config.nameservers[0].0.port(), 53);
        assert_eq!(config.nameservers[1].0.port(), 5353);
        assert_eq!(config.connect_timeout_ms.duration(), Duration::from_millis(10));
        for text in [
            "policy = 1",
            "nameservers = [\"dns.example\"]",
            "hosts = { \"1.2.3.4\" = \"1.2.3.4\" }",
            "hosts = { a = \"b\" }",
            "connect_timeout_ms = 0",
            "idle_timeout_ms = 86400001",
        ] {
            assert!(toml::from_str::<EgressConfig>(text).is_err(), "{text}");
        }
    }
}
