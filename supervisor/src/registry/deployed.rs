//! One deployed version of a Worker.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::limits::{Limits, Resources};

/// Full name of a Worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId {
    /// Dispatch namespace of a user Worker; `None` for a Worker of the account itself (dispatch
    /// and outbound Workers).
    pub namespace: Option<Arc<str>>,
    /// Script name.
    pub name: Arc<str>,
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// SHA-256 of a stored file, 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

impl Digest {
    /// Parses 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.into()))
    }

    /// The hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How a Worker answers requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// Any HTTP server, unmodified.
    Http,
    /// The SDK.
    Ipc,
}

/// How an `http` Worker gets its listening socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpSocket {
    /// It listens on `$PORT` by itself.
    #[default]
    Listen,
    /// It accepts on descriptor 3 (`LISTEN_FDS=1`).
    Inherit,
}

/// How the binary is linked, read from its ELF headers at upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Linkage {
    /// Needs nothing but itself.
    Static,
    /// Needs the loader (absolute path) and the library folders.
    Dynamic {
        /// `PT_INTERP`.
        interpreter: PathBuf,
    },
}

/// What a Worker is given beyond the base sandbox, where the operator's sandbox policy lets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Allow {
    /// It may fork (never exec).
    Processes,
    /// It may map memory writable and executable.
    Jit,
    /// It gets a `/proc` of its own pid namespace.
    Proc,
}

/// The outbound Worker of a `dispatch_namespace` binding.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OutboundBinding {
    /// Name of a Worker of the account.
    pub worker: Arc<str>,
    /// Names of the parameters a dispatch call may pass on.
    pub params: Vec<String>,
}

/// One binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// `plain_text`.
    PlainText(String),
    /// `secret_text`, decrypted.
    Secret(String),
    /// `json`, as text.
    Json(String),
    /// `dispatch_namespace`.
    DispatchNamespace {
        /// The namespace.
        namespace: Arc<str>,
        /// Its outbound Worker.
        outbound: Option<OutboundBinding>,
    },
    /// `service`: another Worker of the account.
    Service {
        /// Its name.
        service: Arc<str>,
    },
}

/// Files given to a Worker, read-only at `/app`: one content-addressed tar archive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Files {
    /// Digest of the archive.
    pub digest: Digest,
    /// Where the archive lies.
    pub path: PathBuf,
    /// Bytes the unpacked files take, rounded up to pages.
    pub bytes: u64,
}

/// A version of a Worker that can be dispatched to.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// Its name.
    pub id: WorkerId,
    /// Version id (UUID v7): another upload is another version.
    pub version: Arc<str>,
    /// Digest of the binary.
    pub digest: Digest,
    /// Where the binary lies (mode 0111, read-only, content-addressed).
    pub binary: PathBuf,
    /// How it is linked.
    pub linkage: Linkage,
    /// How it answers.
    pub contract: Contract,
    /// `http` contract only: whose socket.
    pub socket: HttpSocket,
    /// Arguments after argv[0]; `${PORT}` stands for the port.
    pub args: Vec<String>,
    /// Bindings by name.
    pub bindings: BTreeMap<String, Binding>,
    /// Limits of each invocation.
    pub limits: Limits,
    /// Resources of each process.
    pub resources: Resources,
    /// What it gets beyond the base sandbox.
    pub allow: BTreeSet<Allow>,
    /// Most processes at a time, at least 1.
    pub instances: u32,
    /// Most invocations a process has at a time, at least 1.
    pub concurrency: u32,
    /// Files at `/app`.
    pub files: Option<Files>,
    /// Tags.
    pub tags: BTreeSet<String>,
}
