//! A program of ours as a Worker: whether walls can be raised is known when they were.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::admin::binary;
use crate::launch::{Launcher, StartError, Walls};
use crate::limits::{Limits, Resources};
use crate::registry::{Contract, Deployed, Digest, HttpSocket, WorkerId};

/// A trial Worker, ready to be started.
#[derive(Debug)]
pub(crate) struct Trial {
    worker: Arc<Deployed>,
    _copy: Copy,
}

impl Trial {
    /// Copies the launcher's program into `folder`, on which programs can be executed. Needs to read
    /// the program, so it comes before a supervisor confines itself.
    ///
    /// # Errors
    /// Files that can't be read or written.
    pub(crate) fn prepare(program: &Path, folder: &Path) -> Result<Self, StartError> {
        let copy = Copy::of(program, folder).map_err(io("a copy of sandbox-runner to start"))?;
        Ok(Self { worker: Arc::new(worker(program, copy.0.clone())?), _copy: copy })
    }

    /// Starts it behind every wall (blocking, at most the launcher's time for a start); what the
    /// kernel said of them.
    ///
    /// # Errors
    /// The wall that can't be raised, or what else stopped the start.
    pub(crate) fn run(&self, launcher: &Launcher) -> Result<Walls, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let started = runtime.map_err(io("a runtime"))?.block_on(launcher.start(&self.worker));
        started.map(|process| process.walls().clone())
    }
}

fn io(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |error| StartError::Io { what, error: error.to_string() }
}

/// A program that a Worker may execute and not read, as the store keeps them; removed at the end.
#[derive(Debug)]
struct Copy(PathBuf);

impl Copy {
    fn of(program: &Path, folder: &Path) -> io::Result<Self> {
        let copy = Self(folder.join(format!(".trial-{}", uuid::Uuid::now_v7())));
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&copy.0)?;
        io::copy(&mut std::fs::File::open(program)?, &mut file)?;
        file.set_permissions(std::fs::Permissions::from_mode(0o511))?;
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a temporary copy stays");
        }
    }
}

/// The launcher's own program as a Worker: without its socket it ends at once.
fn worker(program: &Path, binary: PathBuf) -> Result<Deployed, StartError> {
    let failed = |error: String| StartError::Io { what: "sandbox-runner as a trial Worker", error };
    let file = std::fs::File::open(program).map_err(|error| failed(error.to_string()))?;
    let linkage = binary::check(file).map_err(|error| failed(error.to_string()))?.linkage;
    let digest = Digest::parse(&"0".repeat(64)).ok_or_else(|| failed("no digest".to_owned()))?;
    Ok(Deployed {
        id: WorkerId { namespace: None, name: "trial".into() },
        version: "trial".into(),
        digest,
        binary,
        linkage,
        contract: Contract::Http,
        socket: HttpSocket::Listen,
        args: Vec::new(),
        bindings: BTreeMap::new(),
        limits: Limits::default(),
        resources: Resources::default(),
        allow: BTreeSet::new(),
        instances: 1,
        concurrency: 1,
        files: None,
        tags: BTreeSet::new(),
    })
}
