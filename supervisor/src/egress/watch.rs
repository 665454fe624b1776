//! Notices changes in the policy folder.
//!
//! inotify by the `notify` crate rather than a look at every file each second: with a file for each
//! of 100,000 Workers that look would cost more than the requests. inotify misses what happens
//! behind symbolic links and on some network file systems, so there is a slow look besides, and a
//! faster one where inotify can't be had.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::folder::Folder;

/// How often to look when inotify works.
const SLOW: Duration = Duration::from_secs(30);
/// How often to look when it doesn't.
const FAST: Duration = Duration::from_secs(1);
/// Quiet time after an event: an editor or `rsync` makes many.
const QUIET: Duration = Duration::from_millis(50);

/// Watches until dropped.
#[derive(Debug)]
pub(super) struct Watch {
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Begins to watch.
    pub(super) fn begin(folder: &Arc<Folder>) -> std::io::Result<Self> {
        let Some(root) = folder.root() else { return Ok(Self { _watcher: None }) };
        let (events, inbox) = channel();
        let notify = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                // Only fails when the reader is gone, and then nobody cares.
                let _ = events.send(());
            }
        };
        let watcher = watcher(root, notify).inspect_err(|error| {
            tracing::warn!(target: "egress", %error, "inotify is not to be had, looking at the policies each second");
        });
        let interval = if watcher.is_ok() { SLOW } else { FAST };
        let weak = Arc::downgrade(folder);
        std::thread::Builder::new()
            .name("egress-policies".into())
            .spawn(move || follow(&weak, &inbox, interval))?;
        Ok(Self { _watcher: watcher.ok() })
    }
}

fn watcher(root: &Path, notify: impl notify::EventHandler) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(notify)?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Our own reading is an event too, and must not wake us again.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn follow(folder: &Weak<Folder>, inbox: &Receiver<()>, interval: Duration) {
    loop {
        match inbox.recv_timeout(interval) {
            Ok(()) => while inbox.recv_timeout(QUIET).is_ok() {},
            Err(RecvTimeoutError::Timeout) => {}
            // Without inotify the sender is gone from the start.
            Err(RecvTimeoutError::Disconnected) if interval == FAST => std::thread::sleep(FAST),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some(folder) = folder.upgrade() else { return };
        if let Err(error) = folder.reload() {
            tracing::error!(target: "egress", %error, "cannot read the policy folder, all policies stay as they are");
        }
    }
}
