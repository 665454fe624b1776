//! What the store keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::limits::{Limits, Resources};
use crate::registry::{
    Allow, Contract, Digest, HttpSocket, Linkage, Name, NameError, OutboundBinding, WorkerId,
};

/// A moment, microseconds since 1970 (UTC); shown as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter panics past the year 9999; a clock (or database) that far off shows as that.
        const LAST: u64 = 253_402_300_799_000_000;
        let micros = u64::try_from(self.0).unwrap_or(0).min(LAST);
        humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(micros)).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A dispatch namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its id (UUID v7), made at creation.
    pub id: String,
    /// Its name.
    pub name: Name,
    /// Created at.
    pub created: Timestamp,
    /// Last change of it or of one of its Workers.
    pub modified: Timestamp,
    /// Number of Workers in it.
    pub workers: u64,
}

/// A binding at rest: a secret's text is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum StoredBinding {
    /// Text.
    PlainText {
        /// The text.
        text: String,
    },
    /// Secret text, sealed by the [`Vault`](super::Vault).
    SecretText {
        /// The sealed text.
        sealed: String,
    },
    /// JSON.
    Json {
        /// The value.
        json: serde_json::Value,
    },
    /// Dispatch to a namespace.
    DispatchNamespace {
        /// The namespace.
        namespace: Name,
        /// Its outbound Worker.
        outbound: Option<OutboundBinding>,
    },
    /// Another Worker of the account.
    Service {
        /// The Worker.
        service: Name,
    },
}

impl StoredBinding {
    /// The API's name of the binding's type.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PlainText { .. } => "plain_text",
            Self::SecretText { .. } => "secret_text",
            Self::Json { .. } => "json",
            Self::DispatchNamespace { .. } => "dispatch_namespace",
            Self::Service { .. } => "service",
        }
    }
}

/// A file bundle of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredFiles {
    /// Digest of the archive.
    pub digest: String,
    /// Bytes the unpacked files take, rounded up to pages.
    pub bytes: u64,
}

/// All that makes a version besides its binary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name of the uploaded part that was the binary.
    pub main_module: String,
    /// How it answers.
    pub contract: Contract,
    /// `http` only: whose socket.
    pub socket: HttpSocket,
    /// Arguments after argv\[0\].
    pub args: Vec<String>,
    /// How it is linked.
    pub linkage: Linkage,
    /// Bindings by name.
    pub bindings: BTreeMap<String, StoredBinding>,
    /// Limits of each invocation.
    pub limits: Limits,
    /// Resources of each process.
    pub resources: Resources,
    /// What it gets beyond the base sandbox.
    pub allow: BTreeSet<Allow>,
    /// Most processes at a time.
    pub instances: u32,
    /// Most invocations of a process at a time.
    pub concurrency: u32,
    /// Files at `/app`.
    pub files: Option<StoredFiles>,
}

/// One version of a Worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// Its id (UUID v7).
    pub id: Arc<str>,
    /// 1 for a Worker's first version, then rising.
    pub number: u64,
    /// Created at.
    pub created: Timestamp,
    /// Digest of the binary.
    pub digest: Digest,
    /// Length of the binary, bytes.
    pub size: u64,
    /// How long it took to start at upload, milliseconds.
    pub startup_ms: u64,
    /// The rest.
    pub manifest: Manifest,
    /// The walls that were really raised when it was started at upload.
    pub attestation: serde_json::Value,
}

/// A Worker with its current version.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRecord {
    /// Its name.
    pub id: WorkerId,
    /// Created at.
    pub created: Timestamp,
    /// Last change.
    pub modified: Timestamp,
    /// Tags.
    pub tags: BTreeSet<String>,
    /// Current version.
    pub version: Version,
}

/// A version about to be committed.
#[derive(Debug, Clone)]
pub struct NewVersion {
    /// Whose.
    pub id: WorkerId,
    /// The Worker's current version must still be this one (`Some(None)`: there must be none).
    pub replaces: Option<Option<Arc<str>>>,
    /// Its id (UUID v7).
    pub version: Arc<str>,
    /// Digest of the binary.
    pub digest: Digest,
    /// Length of the binary, bytes.
    pub size: u64,
    /// How long it took to start, milliseconds.
    pub startup_ms: u64,
    /// The rest.
    pub manifest: Manifest,
    /// The walls that were really raised.
    pub attestation: serde_json::Value,
    /// New tags; `None` keeps those the Worker has.
    pub tags: Option<BTreeSet<String>>,
}

/// Which Workers a list holds: all of these tags and none of those.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Tags a Worker must have.
    pub with: Vec<String>,
    /// Tags a Worker must not have.
    pub without: Vec<String>,
}

/// Which part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Entries to skip.
    pub offset: u64,
    /// Most entries to return.
    pub limit: u64,
}

/// A Worker's full name from checked names.
#[must_use]
pub(super) fn worker_id(namespace: Option<&Name>, name: &Name) -> WorkerId {
    WorkerId { namespace: namespace.map(Name::shared), name: name.shared() }
}

/// A Worker's full name from stored text.
pub(super) fn stored_id(namespace: Option<String>, name: &str) -> Result<WorkerId, NameError> {
    let namespace = namespace.map(|text| Name::parse(&text)).transpose()?;
    Ok(worker_id(namespace.as_ref(), &Name::parse(name)?))
}
