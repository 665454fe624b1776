//! What is deployed, kept: metadata, binaries, files, secrets.
//!
//! [`Store`] is the metadata behind one trait; [`SqliteStore`] keeps it on this machine. Binaries
//! and file bundles lie beside it, named by their SHA-256 ([`Blobs`]). All of it sits in one
//! [`StateDir`], locked against a second supervisor.

mod blobs;
mod bundle;
mod record;
mod sqlite;
mod state;
mod vault;

pub use blobs::{BlobError, Blobs, Kind, Pinned, Staged};
pub use bundle::{Bundle, BundleError, repack};
pub use record::{
    Filter, Manifest, Namespace, NewVersion, Page, StoredBinding, StoredFiles, Timestamp, Version,
    WorkerRecord,
};
pub use sqlite::SqliteStore;
pub use state::{StateDir, StateError};
pub use vault::{Vault, VaultError};

use std::collections::{BTreeMap, BTreeSet};

use crate::registry::{Digest, Name, WorkerId};

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such namespace.
    #[error("there is no dispatch namespace {0:?}: make it first (`cloister namespace create {0}`)")]
    NoNamespace(String),
    /// A namespace of that name is there already.
    #[error("dispatch namespace {0:?} exists already")]
    NamespaceExists(String),
    /// No such Worker.
    #[error("there is no Worker {0}")]
    NoWorker(WorkerId),
    /// The Worker changed since it was read.
    #[error("Worker {0} was changed by somebody else meanwhile: read it again and repeat")]
    Conflict(WorkerId),
    /// What is stored is not what this program writes.
    #[error("the database holds something invalid: {0}")]
    Corrupt(String),
    /// Written by a newer program.
    #[error("the database has schema {found}, this program knows up to {known}: run the newer cloister")]
    Newer {
        /// Schema found.
        found: i64,
        /// Newest schema known.
        known: i64,
    },
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// Metadata of all that is deployed. Calls block: use a blocking thread. Each change is one
/// transaction and durable when the call returns.
pub trait Store: Send + Sync + 'static {
    /// Creates a namespace.
    fn create_namespace(&self, name: &Name) -> Result<Namespace, StoreError>;
    /// All namespaces, by name.
    fn namespaces(&self) -> Result<Vec<Namespace>, StoreError>;
    /// One namespace.
    fn namespace(&self, name: &Name) -> Result<Namespace, StoreError>;
    /// Deletes a namespace with its Workers.
    fn delete_namespace(&self, name: &Name) -> Result<(), StoreError>;

    /// Makes `version` the current one of its Worker, which is created when missing. Older
    /// versions beyond [`KEPT_VERSIONS`] are forgotten.
    fn put_version(&self, version: &NewVersion) -> Result<WorkerRecord, StoreError>;
    /// A Worker with its current version.
    fn worker(&self, id: &WorkerId) -> Result<WorkerRecord, StoreError>;
    /// Workers of a namespace (`None`: of the account itself) by name, and how many there are.
    fn workers(
        &self,
        namespace: Option<&Name>,
        filter: &Filter,
        page: Page,
    ) -> Result<(Vec<WorkerRecord>, u64), StoreError>;
    /// Kept versions of a Worker, newest first.
    fn versions(&self, id: &WorkerId) -> Result<Vec<Version>, StoreError>;
    /// Deletes a Worker.
    fn delete_worker(&self, id: &WorkerId) -> Result<(), StoreError>;
    /// Replaces the tags of a Worker.
    fn set_tags(&self, id: &WorkerId, tags: &BTreeSet<String>) -> Result<WorkerRecord, StoreError>;

    /// Calls `each` for every Worker; stops at its first error.
    fn each_worker(
        &self,
        each: &mut dyn FnMut(WorkerRecord) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;
    /// Whether any kept version uses this blob.
    fn uses(&self, digest: &Digest) -> Result<bool, StoreError>;
    /// Every blob that kept versions use, with its length in bytes where the store knows it.
    fn blobs(&self) -> Result<BTreeMap<Digest, Option<u64>>, StoreError>;
    /// Remembers `value` under `key` if nothing is there, and returns what is there.
    fn remember(&self, key: &str, value: &str) -> Result<String, StoreError>;
}

/// Versions kept of each Worker, the current one included.
pub const KEPT_VERSIONS: u32 = 10;

#[cfg(test)]
mod tests;
