//! The policy folder: which file judges which Worker, read again when it changes.
//!
//! `<namespace>/<worker>.toml`, or else `<namespace>.toml`, or else `default.toml` judges a user
//! Worker; `account/<worker>.toml`, or else `account.toml`, or else `default.toml` a Worker of the
//! account; without any of them everything is denied. The most specific file alone decides.
//!
//! A namespace that happens to be called `account` or `default` has no files of its own: it must
//! not be able to take the account's.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use cloister_policies::egress::{Mode, POLICY_BYTES, Policy};
use tokio::sync::watch;

use crate::registry::WorkerId;

/// A policy that is in force.
#[derive(Debug)]
pub(super) struct Loaded {
    /// No other policy of this process has this number.
    pub(super) id: u64,
    pub(super) policy: Policy,
}

/// The policies in force.
#[derive(Debug)]
pub(crate) struct Folder {
    root: Option<PathBuf>,
    current: ArcSwap<Index>,
    /// What was read, by path below the root; also the lock of reloading.
    files: Mutex<BTreeMap<PathBuf, File>>,
    changes: watch::Sender<u64>,
    closed: Arc<Loaded>,
    ids: AtomicU64,
}

/// What a lookup needs.
#[derive(Debug, Default)]
struct Index {
    default: Option<Found>,
    account: Scope,
    namespaces: HashMap<String, Scope>,
    status: Vec<PolicyStatus>,
}

#[derive(Debug, Default)]
struct Scope {
    whole: Option<Found>,
    workers: HashMap<String, Found>,
}

#[derive(Debug)]
struct Found {
    file: PathBuf,
    loaded: Arc<Loaded>,
}

impl Index {
    fn find(&self, worker: &WorkerId) -> Option<&Found> {
        let scope = match &worker.namespace {
            None => Some(&self.account),
            Some(namespace) => self.namespaces.get(&**namespace),
        };
        let own = scope.and_then(|scope| scope.workers.get(&*worker.name).or(scope.whole.as_ref()));
        own.or(self.default.as_ref())
    }
}

#[derive(Debug, Clone)]
struct File {
    stamp: Stamp,
    text: Option<String>,
    loaded: Arc<Loaded>,
    refused: Option<String>,
}

/// Tells whether a file may have changed since it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
    /// Read so soon after its last change that another change could carry the same time.
    settled: bool,
}

/// A policy file's state, for `doctor` and the admin API.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PolicyStatus {
    /// Path below the policy folder.
    pub file: PathBuf,
    /// Mode of the policy in force.
    pub mode: Mode,
    /// Number of its rules.
    pub rules: usize,
    /// Why the file as it is now was refused; the policy before it (or one that denies everything)
    /// is in force.
    pub refused: Option<String>,
}

/// Deepest a policy file lies below the folder.
const DEPTH: usize = 2;
/// Name (without `.toml`) of the policy for what has none.
const DEFAULT: &str = "default";
/// Name of the scope of the account's own Workers.
const ACCOUNT: &str = "account";

impl Folder {
    /// Reads the folder; a file with an error denies everything in its scope until it is mended.
    ///
    /// # Errors
    /// When the folder itself cannot be read.
    pub(crate) fn open(root: Option<PathBuf>) -> std::io::Result<Self> {
        let folder = Self {
            root,
            current: ArcSwap::from_pointee(Index::default()),
            files: Mutex::new(BTreeMap::new()),
            changes: watch::Sender::new(0),
            closed: Arc::new(Loaded { id: 0, policy: Policy::closed() }),
            ids: AtomicU64::new(1),
        };
        folder.reload()?;
        Ok(folder)
    }

    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The policy that judges `worker`.
    pub(super) fn judge_of(&self, worker: &WorkerId) -> Arc<Loaded> {
        self.current.load().find(worker).map_or(&self.closed, |found| &found.loaded).clone()
    }

    /// The file (below the folder) that judges `worker`; `None` when there is none.
    pub(crate) fn file_of(&self, worker: &WorkerId) -> Option<PathBuf> {
        self.current.load().find(worker).map(|found| found.file.clone())
    }

    /// The files and their state.
    pub(crate) fn status(&self) -> Vec<PolicyStatus> {
        self.current.load().status.clone()
    }

    /// Counts reloads that changed something, refusals among them.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Reads what changed.
    ///
    /// # Errors
    /// When the folder itself cannot be read; everything stays as it was.
    pub(super) fn reload(&self) -> std::io::Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        list(root, Path::new(""), 1, &mut found)?;
        let mut changed = false;
        let mut next = BTreeMap::new();
        for name in found {
            let known = files.get(&name);
            let file = match self.read(&root.join(&name), &name, known) {
                Read::Same(stamp) => known.map(|known| File { stamp, ..known.clone() }),
                Read::New(file) => {
                    changed = true;
                    Some(file)
                }
                Read::Gone => None,
            };
            if let Some(file) = file {
                next.insert(name, file);
            }
        }
        for gone in files.keys().filter(|name| !next.contains_key(*name)) {
            changed = true;
            tracing::warn!(target: "egress", file = %gone.display(), "egress policy file is gone");
        }
        if changed {
            self.current.store(Arc::new(index(&next)));
            self.changes.send_modify(|count| *count += 1);
        }
        *files = next;
        Ok(())
    }

    fn read(&self, path: &Path, name: &Path, known: Option<&File>) -> Read {
        let stamp = match stamp(path) {
            Ok(stamp) => stamp,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Read::Gone,
            Err(error) => return self.refuse(name, known, None, None, error.to_string()),
        };
        if let Some(known) = known.filter(|known| known.stamp == stamp && stamp.settled) {
            return Read::Same(known.stamp);
        }
        let text = match fs::read(path) {
            Ok(bytes) if bytes.len() > POLICY_BYTES => {
                let reason = format!("{}: longer than {POLICY_BYTES} bytes", name.display());
                return self.refuse(name, known, Some(stamp), None, reason);
            }
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => text,
                Err(_) => {
                    let reason = format!("{}: not UTF-8", name.display());
                    return self.refuse(name, known, Some(stamp), None, reason);
                }
            },
            Err(error) => {
                let reason = format!("{}: {error}", name.display());
                return self.refuse(name, known, None, None, reason);
            }
        };
        if known.is_some_and(|known| known.text.as_deref() == Some(&text)) {
            return Read::Same(stamp);
        }
        match Policy::parse(&name.display().to_string(), &text) {
            Ok(policy) => {
                let rules = policy.rules().len();
                tracing::info!(target: "egress", file = %name.display(), rules, "egress policy is in force");
                let loaded = Arc::new(Loaded { id: self.ids.fetch_add(1, Ordering::Relaxed), policy });
                Read::New(File { stamp, text: Some(text), loaded, refused: None })
            }
            Err(error) => self.refuse(name, known, Some(stamp), Some(text), error.to_string()),
        }
    }

    /// Keeps the policy that was in force, or closes the scope when there was none.
    fn refuse(
        &self,
        name: &Path,
        known: Option<&File>,
        stamp: Option<Stamp>,
        text: Option<String>,
        reason: String,
    ) -> Read {
        let unread = Stamp { device: 0, inode: 0, bytes: 0, changed: (0, 0), settled: false };
        let stamp = stamp.unwrap_or(unread);
        if known.is_some_and(|known| known.refused.as_ref() == Some(&reason)) {
            return Read::Same(stamp);
        }
        let stays = if known.is_some() { "the one before stays in force" } else { "everything is denied" };
        tracing::error!(target: "egress", file = %name.display(), "egress policy REFUSED, {stays}:\n{reason}");
        let loaded = known.map_or(&self.closed, |known| &known.loaded).clone();
        Read::New(File { stamp, text, loaded, refused: Some(reason) })
    }
}

enum Read {
    /// As it was read before.
    Same(Stamp),
    New(File),
    Gone,
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    /// Coarser than any file system's clock.
    const SETTLES_IN: Duration = Duration::from_secs(2);
    let metadata = fs::metadata(path)?;
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let settled_before = since_epoch.saturating_sub(SETTLES_IN).as_secs();
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        settled: u64::try_from(metadata.ctime()).is_ok_and(|changed| changed < settled_before),
    })
}

/// Policy files below `root`/`below`, as paths below `root`; hidden ones are passed over.
fn list(root: &Path, below: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = below.join(name);
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        // Follows symbolic links, as configuration managers use them.
        match fs::metadata(root.join(&path)) {
            Ok(metadata) if metadata.is_dir() && depth < DEPTH => match list(root, &path, depth + 1, found) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            },
            Ok(metadata) if metadata.is_file() && is_toml => found.push(path),
            // What can't be looked at is refused when it is read.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound && is_toml => found.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn index(files: &BTreeMap<PathBuf, File>) -> Index {
    let mut index = Index::default();
    for (path, file) in files {
        index.status.push(PolicyStatus {
            file: path.clone(),
            mode: file.loaded.policy.mode(),
            rules: file.loaded.policy.rules().len(),
            refused: file.refused.clone(),
        });
        let names: Option<Vec<_>> = path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_str().map(str::to_owned))
            .collect();
        let loaded = Found { file: path.clone(), loaded: Arc::clone(&file.loaded) };
        match names.as_deref() {
            Some([name]) if name == DEFAULT => index.default = Some(loaded),
            Some([name]) if name == ACCOUNT => index.account.whole = Some(loaded),
            Some([name]) => index.namespaces.entry(name.clone()).or_default().whole = Some(loaded),
            Some([scope, worker]) if scope == ACCOUNT => {
                drop(index.account.workers.insert(worker.clone(), loaded))
            }
            Some([scope, worker]) if scope != DEFAULT => {
                let scope = index.namespaces.entry(scope.clone()).or_default();
                scope.workers.insert(worker.clone(), loaded);
            }
            _ => {
                tracing::warn!(target: "egress", file = %path.display(), "egress policy file is for no Worker")
            }
        }
    }
    index
}
