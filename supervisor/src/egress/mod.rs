//! The egress filter: every byte a Worker sends out of the machine passes here.
//!
//! A request is judged by the Worker's policy; handed to an outbound Worker if the rule or the
//! dispatch call says so; its name is resolved here; each address is classified; and only an
//! address that was judged is dialled. The format of policies is described in docs/POLICY.md.

mod caller;
mod config;
mod dial;
mod error;
mod fetch;
mod folder;
mod headers;
mod hello;
mod idle;
mod journal;
mod kept;
mod metered;
mod own;
mod proxy;
mod rate;
mod resolve;
mod send;
mod tunnel;
mod watch;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::slots::Slots;
pub use caller::{
    BindingTarget, Bindings, Budget, Caller, Exhausted, OutboundCall, OutboundInvoker, Secrets,
};
pub use config::{Addresses, EgressConfig, HostName, Millis, Nameserver};
pub use dial::CertificateError;
pub use error::EgressError;
pub(crate) use folder::Folder;
pub use folder::PolicyStatus;
pub(crate) use headers::wants_websocket;
pub use journal::Decision;
pub(crate) use own::OwnAddresses;
pub use resolve::Resolve;

use crate::registry::WorkerId;

/// The filter; one for the whole supervisor, shared by all its runtimes.
pub struct Egress {
    folder: Arc<folder::Folder>,
    _watch: watch::Watch,
    resolver: Arc<dyn Resolve>,
    own: own::OwnAddresses,
    dialer: dial::Dialer,
    idle: Arc<idle::Idle>,
    rates: rate::Rates,
    journal: Arc<journal::Journal>,
    requests: Arc<Slots<caller::Payer>>,
    connections: Arc<Slots<caller::Payer>>,
    secrets: OnceLock<Arc<dyn Secrets>>,
    outbound: OnceLock<Arc<dyn OutboundInvoker>>,
    connect_timeout: Duration,
    response_timeout: Duration,
    idle_timeout: Duration,
}

/// Why the filter can't start.
#[derive(Debug, thiserror::Error)]
pub enum EgressStartError {
    /// The policy folder can't be read or watched.
    #[error("egress policy folder {}: {error}; make it, or leave egress.policy_dir out", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// `extra_ca` can't be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The host's addresses can't be listed.
    #[error("cannot list the host's addresses: {0}")]
    Interfaces(std::io::Error),
}

impl Egress {
    /// Starts the filter. A policy file with an error does not stop it, but closes its scope: look
    /// at [`Egress::policies`].
    ///
    /// # Errors
    /// See [`EgressStartError`].
    pub fn start(config: &EgressConfig) -> Result<Arc<Self>, EgressStartError> {
        Self::with_resolver(config, Arc::new(resolve::Dns::new(config)))
    }

    /// As [`Egress::start`], with names resolved by `resolver` alone.
    ///
    /// # Errors
    /// See [`EgressStartError`].
    pub fn with_resolver(
        config: &EgressConfig,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Arc<Self>, EgressStartError> {
        let unusable =
            |error| EgressStartError::Folder { folder: config.policy_dir.clone().unwrap_or_default(), error };
        let folder = Arc::new(folder::Folder::open(config.policy_dir.clone()).map_err(unusable)?);
        let own = own::OwnAddresses::new(config.own_addresses.clone());
        let connect_timeout = config.connect_timeout_ms.duration();
        Ok(Arc::new(Self {
            _watch: watch::Watch::begin(&folder).map_err(unusable)?,
            folder,
            resolver,
            own: own.map_err(EgressStartError::Interfaces)?,
            dialer: dial::Dialer::new(config.extra_ca.as_deref(), connect_timeout)?,
            idle: Arc::default(),
            rates: rate::Rates::default(),
            journal: Arc::default(),
            requests: Slots::new(config.worker_requests.get()),
            connections: Slots::new(config.worker_connections.get()),
            secrets: OnceLock::new(),
            outbound: OnceLock::new(),
            connect_timeout,
            response_timeout: config.response_timeout_ms.duration(),
            idle_timeout: config.idle_timeout_ms.duration(),
        }))
    }

    /// Lends the secrets that policies name; the first call counts. Without it a rule that needs a
    /// secret refuses.
    pub fn lend_secrets(&self, secrets: Arc<dyn Secrets>) {
        let _ = self.secrets.set(secrets);
    }

    /// Lends the runner of outbound Workers; the first call counts. Without it what would go to one
    /// fails.
    pub fn lend_outbound(&self, outbound: Arc<dyn OutboundInvoker>) {
        let _ = self.outbound.set(outbound);
    }

    /// The policy files and whether they are in force.
    #[must_use]
    pub fn policies(&self) -> Vec<PolicyStatus> {
        self.folder.status()
    }

    /// Counts changes of what [`Egress::policies`] says.
    #[must_use]
    pub fn policy_changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.folder.changes()
    }

    /// The last decisions, oldest first: up to 64 of each Worker (of an outbound Worker, for each on whose behalf
    /// it asks), 8192 in all.
    #[must_use]
    pub fn decisions(&self) -> Vec<Decision> {
        self.journal.recent(|_| true)
    }

    /// As [`Egress::decisions`], for what `worker` asked.
    #[must_use]
    pub fn decisions_of(&self, worker: &WorkerId) -> Vec<Decision> {
        self.journal.recent(|payer| payer.worker == *worker)
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policies", &self.folder.status()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
