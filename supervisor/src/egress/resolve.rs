//! Names to addresses, in the supervisor: a Worker never resolves anything by itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;

use super::config::EgressConfig;

/// Turns a name into addresses; what they may be used for is not its business.
pub trait Resolve: Send + Sync {
    /// The addresses of `name` (lower-case ASCII, no trailing dot), best first; the error is for
    /// people.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>>;
}

/// The configured names, and DNS for all others.
pub(super) struct Dns {
    hosts: HashMap<String, Vec<IpAddr>>,
    resolver: Result<TokioResolver, String>,
    timeout: Duration,
}

impl Dns {
    pub(super) fn new(config: &EgressConfig) -> Self {
        let hosts = config
            .hosts
            .iter()
            .map(|(name, addresses)| (name.as_str().to_owned(), addresses.as_slice().to_vec()))
            .collect();
        let resolver = resolver(config);
        if let Err(error) = &resolver {
            tracing::warn!(target: "egress", %error, "there is no DNS resolver, only [egress] hosts resolve");
        }
        Self { hosts, resolver, timeout: config.connect_timeout_ms.duration() }
    }
}

fn resolver(config: &EgressConfig) -> Result<TokioResolver, String> {
    let mut builder = if config.nameservers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| error.to_string())?
    } else {
        let servers = config.nameservers.iter().map(|server| {
            let with_port = |mut connection: ConnectionConfig| {
                connection.port = server.0.port();
                connection
            };
            let connections = vec![with_port(ConnectionConfig::udp()), with_port(ConnectionConfig::tcp())];
            NameServerConfig::new(server.0.ip(), true, connections)
        });
        let servers = ResolverConfig::from_name_servers(servers.collect());
        TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
    };
    builder.options_mut().cache_size = 8192;
    builder.build().map_err(|error| error.to_string())
}

impl Resolve for Dns {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        Box::pin(async move {
            if let Some(addresses) = self.hosts.get(name) {
                return Ok(addresses.clone());
            }
            let resolver = self.resolver.as_ref().map_err(Clone::clone)?;
            // Fully qualified: a search domain must not turn it into another name.
            let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
            name.set_fqdn(true);
            match tokio::time::timeout(self.timeout, resolver.lookup_ip(name)).await {
                Ok(Ok(found)) => Ok(found.iter().collect()),
                Ok(Err(error)) if error.is_no_records_found() => Ok(Vec::new()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("the resolver did not answer in time".into()),
            }
        })
    }
}
