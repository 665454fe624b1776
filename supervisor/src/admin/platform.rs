//! What the handlers act on: store, files, secrets, the published registry, the pool.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore};

use super::error::ApiError;
use super::parts::Parts;
use cloister_policies::sandbox::SandboxPolicy;

use crate::registry::{Binding, Deployed, Digest, Files, Name, WorkerId};
use crate::store::{
    Blobs, Kind, Manifest, NewVersion, SqliteStore, StateDir, StateError, Store, StoreError, StoredBinding,
    Vault, VaultError, WorkerRecord,
};

/// Uploads that are received and probed at a time; more wait.
const UPLOADS_AT_A_TIME: usize = 8;

/// Why the state can't be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The key is another one than the secrets were sealed with.
    #[error("{} is not the key that the stored secrets were sealed with: restore it from a backup", .0.display())]
    WrongKey(std::path::PathBuf),
}

/// Settings of the control plane.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The account in paths.
    pub account: Name,
    /// Largest upload, bytes.
    pub upload_bytes: u64,
    /// What Workers get and may ask for.
    pub sandbox: Arc<SandboxPolicy>,
}

/// The control plane.
pub struct Platform {
    pub(super) settings: Settings,
    pub(super) store: Arc<dyn Store>,
    pub(super) blobs: Blobs,
    pub(super) vault: Arc<Vault>,
    pub(super) parts: Parts,
    pub(super) uploads: Semaphore,
    /// Held from commit to publication, so that both happen in the same order.
    changes: Mutex<()>,
    _state: StateDir,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Platform {
    /// Opens the state, publishes what is deployed to the registry, removes files that nothing uses.
    /// A Worker whose file is damaged is left out and named in the log. Blocks.
    pub fn open(settings: Settings, state: StateDir, parts: Parts) -> Result<Self, OpenError> {
        let store = SqliteStore::open(&state.database())?;
        let vault = Vault::open(&state.key())?;
        if store.remember("key fingerprint", vault.fingerprint())? != vault.fingerprint() {
            return Err(OpenError::WrongKey(state.key()));
        }
        let platform = Self {
            settings,
            store: Arc::new(store),
            blobs: state.blobs()?,
            vault: Arc::new(vault),
            parts,
            uploads: Semaphore::new(UPLOADS_AT_A_TIME),
            changes: Mutex::default(),
            _state: state,
        };
        platform.publish_all()?;
        platform.sweep()?;
        Ok(platform)
    }

    fn publish_all(&self) -> Result<(), OpenError> {
        let mut snapshot = crate::registry::Snapshot::default();
        for namespace in self.store.namespaces()? {
            snapshot.add_namespace(namespace.name.as_str());
        }
        self.store.each_worker(&mut |record| {
            let version = &record.version;
            match self.blobs.check(Kind::Binary, &version.digest, version.size) {
                Ok(()) => match self.deployed(&record) {
                    Ok(deployed) => snapshot.insert(Arc::new(deployed)),
                    Err(error) => tracing::error!(worker = %record.id, %error, "Worker is left out"),
                },
                Err(error) => tracing::error!(worker = %record.id, %error, "Worker is left out"),
            }
            Ok(())
        })?;
        tracing::info!(workers = snapshot.len(), "state loaded");
        self.parts.registry.publish(snapshot);
        Ok(())
    }

    /// Removes every file that no kept version uses. Blocks.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let used = self.store.blobs()?;
        let listed = self.blobs.list().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        for digest in listed.iter().filter(|digest| !used.contains_key(digest)) {
            self.blobs.collect(digest, || self.store.uses(digest))?;
        }
        Ok(())
    }

    /// A stored Worker as the data plane sees it, secrets opened.
    pub(super) fn deployed(&self, record: &WorkerRecord) -> Result<Deployed, ApiError> {
        let version = &record.version;
        self.build(&record.id, &version.id, &version.digest, &version.manifest, record.tags.clone())
    }

    /// A version as the data plane sees it.
    pub(super) fn build(
        &self,
        id: &WorkerId,
        version: &Arc<str>,
        digest: &Digest,
        manifest: &Manifest,
        tags: BTreeSet<String>,
    ) -> Result<Deployed, ApiError> {
        let open = |(name, stored): (&String, &StoredBinding)| {
            let binding = match stored {
                StoredBinding::PlainText { text } => Binding::PlainText(text.clone()),
                StoredBinding::SecretText { sealed } => Binding::Secret(self.vault.unseal(id, name, sealed)?),
                StoredBinding::Json { json } => Binding::Json(json.to_string()),
                StoredBinding::DispatchNamespace { namespace, outbound } => {
                    Binding::DispatchNamespace { namespace: namespace.shared(), outbound: outbound.clone() }
                }
                StoredBinding::Service { service } => Binding::Service { service: service.shared() },
            };
            Ok::<_, VaultError>((name.clone(), binding))
        };
        let files = manifest.files.as_ref().map(|files| {
            let digest = Digest::parse(&files.digest)
                .ok_or_else(|| StoreError::Corrupt(format!("digest {:?}", files.digest)))?;
            let path = self.blobs.path(Kind::Bundle, &digest);
            Ok::<_, StoreError>(Files { digest, path, bytes: files.bytes })
        });
        Ok(Deployed {
            id: id.clone(),
            version: Arc::clone(version),
            digest: digest.clone(),
            binary: self.blobs.path(Kind::Binary, digest),
            linkage: manifest.linkage.clone(),
            contract: manifest.contract,
            socket: manifest.socket,
            args: manifest.args.clone(),
            bindings: manifest.bindings.iter().map(open).collect::<Result<_, _>>()?,
            limits: manifest.limits,
            resources: manifest.resources,
            allow: manifest.allow.clone(),
            instances: manifest.instances,
            concurrency: manifest.concurrency,
            files: files.transpose()?,
            tags,
        })
    }

    /// Commits a version, publishes it, lets the old one go.
    pub(super) async fn commit(self: &Arc<Self>, version: NewVersion) -> Result<WorkerRecord, ApiError> {
        let _guard = self.changes.lock().await;
        let platform = Arc::clone(self);
        let (record, deployed) = blocking(move || {
            let before = platform.digests(&version.id)?;
            let record = platform.store.put_version(&version)?;
            let after = platform.digests(&version.id)?;
            for digest in before.difference(&after) {
                platform.blobs.collect(digest, || platform.store.uses(digest))?;
            }
            let deployed = platform.deployed(&record)?;
            Ok((record, deployed))
        })
        .await?;
        self.publish(deployed);
        Ok(record)
    }

    fn publish(&self, deployed: Deployed) {
        let id = deployed.id.clone();
        let deployed = Arc::new(deployed);
        self.parts.registry.update(|snapshot| snapshot.insert(Arc::clone(&deployed)));
        self.parts.pool.retire(&id);
    }

    /// Replaces tags: they are no part of a version, no process is restarted.
    pub(super) async fn set_tags(
        self: &Arc<Self>,
        id: WorkerId,
        change: impl FnOnce(&mut BTreeSet<String>) -> Result<(), ApiError> + Send + 'static,
    ) -> Result<WorkerRecord, ApiError> {
        let _guard = self.changes.lock().await;
        let platform = Arc::clone(self);
        let (record, deployed) = blocking(move || {
            let mut tags = platform.store.worker(&id)?.tags;
            change(&mut tags)?;
            let record = platform.store.set_tags(&id, &tags)?;
            let deployed = platform.deployed(&record)?;
            Ok((record, deployed))
        })
        .await?;
        self.publish(deployed);
        Ok(record)
    }

    /// Deletes a Worker.
    pub(super) async fn delete_worker(self: &Arc<Self>, id: WorkerId) -> Result<(), ApiError> {
        let _guard = self.changes.lock().await;
        let platform = Arc::clone(self);
        let worker = id.clone();
        blocking(move || {
            let digests = platform.digests(&worker)?;
            platform.store.delete_worker(&worker)?;
            platform.parts.registry.update(|snapshot| snapshot.remove(&worker));
            for digest in &digests {
                platform.blobs.collect(digest, || platform.store.uses(digest))?;
            }
            Ok(())
        })
        .await?;
        self.parts.pool.retire(&id);
        Ok(())
    }

    /// Creates a namespace.
    pub(super) async fn create_namespace(
        self: &Arc<Self>,
        name: Name,
    ) -> Result<crate::store::Namespace, ApiError> {
        let _guard = self.changes.lock().await;
        let platform = Arc::clone(self);
        blocking(move || {
            let namespace = platform.store.create_namespace(&name)?;
            platform.parts.registry.update(|snapshot| snapshot.add_namespace(name.as_str()));
            Ok(namespace)
        })
        .await
    }

    /// Deletes a namespace with its Workers.
    pub(super) async fn delete_namespace(self: &Arc<Self>, name: Name) -> Result<(), ApiError> {
        let _guard = self.changes.lock().await;
        let platform = Arc::clone(self);
        blocking(move || {
            platform.store.delete_namespace(&name)?;
            let before = Arc::clone(&platform.parts.registry.snapshot());
            platform.parts.registry.update(|snapshot| snapshot.remove_namespace(name.as_str()));
            for deployed in before.workers().filter(|it| it.id.namespace.as_deref() == Some(name.as_str())) {
                platform.parts.pool.retire(&deployed.id);
            }
            Ok(platform.sweep()?)
        })
        .await
    }

    /// Digests of all kept versions of a Worker; none when there is no such Worker.
    fn digests(&self, id: &WorkerId) -> Result<BTreeSet<Digest>, StoreError> {
        let versions = match self.store.versions(id) {
            Err(StoreError::NoWorker(_)) => Vec::new(),
            versions => versions?,
        };
        let mut digests = BTreeSet::new();
        for version in versions {
            digests.extend(version.manifest.files.and_then(|files| Digest::parse(&files.digest)));
            digests.insert(version.digest);
        }
        Ok(digests)
    }

    /// The path of the state folder's database; for messages.
    #[must_use]
    pub fn state_path(&self) -> &Path {
        self._state.path()
    }
}

/// Runs what blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?
}
