//! From an upload, or a change of settings, to a dispatchable version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cloister_policies::sandbox::{Asked, Refused, Waiver, Who};

use super::binary;
use super::error::ApiError;
use super::metadata::{
    self, BindingSpec, ENVIRONMENT_BYTES, Extension, ExtensionPatch, Patch, check_args, check_bindings,
    check_tags,
};
use super::platform::{Platform, blocking};
use super::upload::Upload;
use crate::limits::{Limits, Resources};
use crate::registry::{Allow, Contract, HttpSocket, Linkage, WorkerId};
use crate::store::{
    Kind, Manifest, NewVersion, Pinned, StoreError, StoredBinding, StoredFiles, WorkerRecord, repack,
};

impl Platform {
    /// The Worker as it is, or `None`; an unknown namespace is an error.
    pub(super) async fn current(self: &Arc<Self>, id: &WorkerId) -> Result<Option<WorkerRecord>, ApiError> {
        let (platform, id) = (Arc::clone(self), id.clone());
        blocking(move || match platform.store.worker(&id) {
            Ok(record) => Ok(Some(record)),
            Err(StoreError::NoWorker(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
        .await
    }

    /// Checks an upload, starts it once, commits it.
    pub(super) async fn deploy(
        self: &Arc<Self>,
        id: WorkerId,
        upload: Upload,
    ) -> Result<WorkerRecord, ApiError> {
        let Upload { metadata, main_module, program, files } = upload;
        if let Some(tags) = &metadata.tags {
            check_tags(tags)?;
        }
        let current = self.current(&id).await?;
        let (bindings, inherits) =
            self.bindings(&id, metadata.bindings, &metadata.keep_bindings, current.as_ref())?;
        let contract = metadata.cloister.contract.unwrap_or(match program.marked() {
            true => Contract::Ipc,
            false => Contract::Http,
        });
        let platform = Arc::clone(self);
        let (linkage, program, files) = blocking(move || {
            let linkage = binary::check(program.reader()?)?.linkage;
            let files = files.map(|files| {
                let into = platform.blobs.stage(platform.settings.upload_bytes.saturating_mul(2), b"")?;
                let bundle = repack(files.reader()?, into)?;
                Ok::<_, ApiError>((platform.blobs.keep(bundle.archive, Kind::Bundle)?, bundle.bytes))
            });
            Ok((linkage, platform.blobs.keep(program, Kind::Binary)?, files.transpose()?))
        })
        .await?;
        let stored = files.as_ref().map(|(pinned, bytes)| StoredFiles {
            digest: pinned.digest().as_str().to_owned(),
            bytes: *bytes,
        });
        let manifest = self.manifest(&id, main_module, metadata.cloister, contract, linkage, stored)?;
        let manifest = Manifest { bindings, limits: metadata.limits, ..manifest };
        let replaces = inherits.then(|| current.as_ref().map(|record| Arc::clone(&record.version.id)));
        self.start_and_commit(id, manifest, &program, replaces, metadata.tags, current).await
    }

    /// Changes settings of a Worker; the changed version is started once before it is committed.
    pub(super) async fn patch(
        self: &Arc<Self>,
        id: WorkerId,
        patch: Patch,
    ) -> Result<WorkerRecord, ApiError> {
        if let Some(tags) = &patch.tags {
            check_tags(tags)?;
        }
        let Some(current) = self.current(&id).await? else { return Err(StoreError::NoWorker(id).into()) };
        let mut manifest = current.version.manifest.clone();
        if let Some(specs) = patch.bindings {
            manifest.bindings = self.bindings(&id, specs, &patch.keep_bindings, Some(&current))?.0;
        } else if !patch.keep_bindings.is_empty() {
            return Err(ApiError::invalid("settings.keep_bindings means nothing without settings.bindings"));
        }
        if let Some(limits) = patch.limits {
            manifest.limits = limits;
        }
        let manifest = self.patched(&id, manifest, patch.cloister)?;
        self.change(current, manifest, patch.tags, true).await
    }

    /// Commits a changed manifest on the same program; probes it first when told.
    pub(super) async fn change(
        self: &Arc<Self>,
        current: WorkerRecord,
        manifest: Manifest,
        tags: Option<BTreeSet<String>>,
        probe: bool,
    ) -> Result<WorkerRecord, ApiError> {
        environment(&manifest)?;
        let version = current.version;
        let mut new = NewVersion {
            id: current.id,
            replaces: Some(Some(version.id)),
            version: uuid::Uuid::now_v7().to_string().into(),
            digest: version.digest,
            size: version.size,
            startup_ms: version.startup_ms,
            manifest,
            attestation: version.attestation,
            tags,
        };
        if probe {
            self.probe(&mut new).await?;
        }
        self.commit(new).await
    }

    async fn start_and_commit(
        self: &Arc<Self>,
        id: WorkerId,
        manifest: Manifest,
        program: &Pinned,
        replaces: Option<Option<Arc<str>>>,
        tags: Option<BTreeSet<String>>,
        current: Option<WorkerRecord>,
    ) -> Result<WorkerRecord, ApiError> {
        environment(&manifest)?;
        let mut new = NewVersion {
            id,
            replaces,
            version: uuid::Uuid::now_v7().to_string().into(),
            digest: program.digest().clone(),
            size: program.size(),
            startup_ms: 0,
            manifest,
            attestation: serde_json::Value::Null,
            tags: tags.or_else(|| current.is_none().then(BTreeSet::new)),
        };
        self.probe(&mut new).await?;
        self.commit(new).await
    }

    /// Starts the version once behind its walls and notes how that went.
    async fn probe(self: &Arc<Self>, new: &mut NewVersion) -> Result<(), ApiError> {
        let deployed = self.build(
            &new.id,
            &new.version,
            &new.digest,
            &new.manifest,
            new.tags.clone().unwrap_or_default(),
        )?;
        if !deployed.allow.contains(&Allow::Jit) {
            let path = deployed.binary.clone();
            let program = blocking(move || {
                let file = std::fs::File::open(path).map_err(ApiError::internal)?;
                Ok(binary::check(file)?)
            });
            if let Some(what) = program.await?.writes_code {
                return Err(ApiError::refused_program(format!(
                    "the program has {what}: code that it writes by itself takes the waiver `jit`; link it without"
                )));
            }
        }
        let startup = self.parts.pool.probe(&Arc::new(deployed)).await?;
        new.startup_ms = startup.startup_ms;
        new.attestation = startup.walls;
        Ok(())
    }

    /// The bindings to store, and whether any was taken from the current version.
    fn bindings(
        &self,
        id: &WorkerId,
        specs: Vec<BindingSpec>,
        keep: &BTreeSet<String>,
        current: Option<&WorkerRecord>,
    ) -> Result<(BTreeMap<String, StoredBinding>, bool), ApiError> {
        check_bindings(&specs)?;
        const KINDS: [&str; 5] = ["plain_text", "secret_text", "json", "dispatch_namespace", "service"];
        if let Some(unknown) = keep.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
            let known = KINDS.join(", ");
            return Err(ApiError::invalid(format!(
                "keep_bindings: {unknown:?} is not supported, allowed are {known}"
            )));
        }
        let none = BTreeMap::new();
        let old = current.map_or(&none, |record| &record.version.manifest.bindings);
        let mut bindings: BTreeMap<_, _> = old
            .iter()
            .filter(|(_, binding)| keep.contains(binding.kind()))
            .map(|(name, binding)| (name.clone(), binding.clone()))
            .collect();
        let mut inherits = !keep.is_empty();
        for spec in specs {
            let name = spec.name().to_owned();
            let same = |known: &String| known.eq_ignore_ascii_case(&name);
            bindings.retain(|known, _| !same(known));
            let binding = match spec {
                BindingSpec::PlainText { text, .. } => StoredBinding::PlainText { text },
                BindingSpec::SecretText { text, .. } => {
                    StoredBinding::SecretText { sealed: self.vault.seal(id, &name, &text)? }
                }
                BindingSpec::Json { json, .. } => {
                    metadata::binding_text(&name, &json.to_string())?;
                    StoredBinding::Json { json }
                }
                BindingSpec::DispatchNamespace { namespace, outbound, .. } => {
                    if !self.parts.registry.snapshot().has_namespace(namespace.as_str()) {
                        return Err(StoreError::NoNamespace(namespace.to_string()).into());
                    }
                    let outbound = outbound.map(metadata::OutboundSpec::into_binding).transpose()?;
                    if let Some(outbound) = &outbound {
                        self.must_exist(&name, &outbound.worker)?;
                    }
                    StoredBinding::DispatchNamespace { namespace, outbound }
                }
                BindingSpec::Service { service, .. } => {
                    self.must_exist(&name, service.as_str())?;
                    StoredBinding::Service { service }
                }
                BindingSpec::Inherit { .. } => {
                    inherits = true;
                    let missing = || ApiError::invalid(format!("binding {name}: there is none to inherit"));
                    old.get(&name).cloned().ok_or_else(missing)?
                }
            };
            bindings.insert(name, binding);
        }
        Ok((bindings, inherits))
    }

    fn must_exist(&self, binding: &str, worker: &str) -> Result<(), ApiError> {
        if self.parts.registry.snapshot().find(None, worker).is_some() {
            return Ok(());
        }
        let id = WorkerId { namespace: None, name: worker.into() };
        let mut error = ApiError::from(StoreError::NoWorker(id));
        error.message = format!("binding {binding}: {} of the account: deploy that one first", error.message);
        Err(error)
    }

    fn manifest(
        &self,
        id: &WorkerId,
        main_module: String,
        extension: Extension,
        contract: Contract,
        linkage: Linkage,
        files: Option<StoredFiles>,
    ) -> Result<Manifest, ApiError> {
        let given = self.settings.sandbox.resources(who(id), &Asked::default()).map_err(refused)?;
        let manifest = Manifest {
            main_module,
            contract,
            socket: HttpSocket::Listen,
            args: Vec::new(),
            linkage,
            bindings: BTreeMap::new(),
            limits: Limits::default(),
            resources: resources(&given),
            allow: BTreeSet::new(),
            instances: given.instances,
            concurrency: given.concurrency,
            files,
        };
        let patch = ExtensionPatch {
            contract: Some(contract),
            socket: extension.socket,
            args: Some(extension.args),
            allow: Some(extension.allow),
            instances: extension.instances,
            concurrency: extension.concurrency,
            resources: extension.resources,
        };
        self.patched(id, manifest, patch)
    }

    /// The manifest with what `patch` gives. All of it is asked of the sandbox policy anew: what an
    /// older policy granted does not outlive it.
    fn patched(
        &self,
        id: &WorkerId,
        mut manifest: Manifest,
        patch: ExtensionPatch,
    ) -> Result<Manifest, ApiError> {
        if let Some(contract) = patch.contract {
            manifest.contract = contract;
        }
        if let Some(socket) = patch.socket {
            manifest.socket = socket;
        }
        if manifest.contract == Contract::Ipc && patch.socket.is_some() {
            return Err(ApiError::invalid("cloister.socket means nothing for the ipc contract"));
        }
        if let Some(args) = patch.args {
            check_args(&args)?;
            manifest.args = args;
        }
        if let Some(allow) = patch.allow {
            manifest.allow = allow;
        }
        for allow in &manifest.allow {
            self.settings.sandbox.permits(who(id), waiver(*allow)).map_err(refused)?;
        }
        let (now, new) = (manifest.resources, patch.resources);
        let asked = Asked {
            memory_bytes: Some(new.memory_bytes.unwrap_or(now.memory_bytes)),
            pids: Some(new.pids.unwrap_or(now.pids)),
            cpu_percent: Some(new.cpu_percent.unwrap_or(now.cpu_percent)),
            tmp_bytes: Some(new.tmp_bytes.unwrap_or(now.tmp_bytes)),
            instances: Some(patch.instances.unwrap_or(manifest.instances)),
            concurrency: Some(patch.concurrency.unwrap_or(manifest.concurrency)),
        };
        let given = self.settings.sandbox.resources(who(id), &asked).map_err(refused)?;
        manifest.resources = resources(&given);
        (manifest.instances, manifest.concurrency) = (given.instances, given.concurrency);
        Ok(manifest)
    }
}

fn who(id: &WorkerId) -> Who<'_> {
    Who { namespace: id.namespace.as_deref(), worker: &id.name }
}

fn refused(error: Refused) -> ApiError {
    ApiError::invalid(format!("cloister: {error}"))
}

const fn waiver(allow: Allow) -> Waiver {
    match allow {
        Allow::Processes => Waiver::Processes,
        Allow::Jit => Waiver::Jit,
        Allow::Proc => Waiver::Proc,
    }
}

const fn resources(given: &cloister_policies::sandbox::Resources) -> Resources {
    Resources {
        memory_bytes: given.memory_bytes,
        pids: given.pids,
        cpu_percent: given.cpu_percent,
        tmp_bytes: given.tmp_bytes,
    }
}

/// What travels to the Worker at start must fit its message.
fn environment(manifest: &Manifest) -> Result<(), ApiError> {
    let binding = |(name, binding): (&String, &StoredBinding)| {
        name.len()
            + match binding {
                StoredBinding::PlainText { text } => text.len(),
                StoredBinding::SecretText { sealed } => sealed.len() / 4 * 3,
                StoredBinding::Json { json } => json.to_string().len(),
                StoredBinding::DispatchNamespace { .. } | StoredBinding::Service { .. } => 64,
            }
    };
    let bytes = manifest.bindings.iter().map(binding).sum::<usize>()
        + manifest.args.iter().map(String::len).sum::<usize>();
    if bytes > ENVIRONMENT_BYTES {
        return Err(ApiError::too_large(format!(
            "bindings and arguments have {bytes} bytes together, allowed are {ENVIRONMENT_BYTES}"
        )));
    }
    Ok(())
}
