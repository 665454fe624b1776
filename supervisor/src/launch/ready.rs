//! Blanks: those being made, those that wait, those taken.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloister_ipc::launch::{BlankId, Exited, KernelView, Spec, ToLauncher};
use tokio::sync::{oneshot, watch};

use super::net::Sockets;
use super::{Exit, StartError};

/// A blank that waits for its binary.
#[derive(Debug)]
pub(super) struct Blank {
    pub(super) id: BlankId,
    pub(super) pid: i32,
    pub(super) uid: u32,
    pub(super) start: OwnedFd,
    pub(super) listener: Option<OwnedFd>,
    pub(super) sockets: Arc<Sockets>,
    pub(super) exit: watch::Receiver<Option<Exit>>,
}

type Waiter = oneshot::Sender<Result<Blank, StartError>>;

#[derive(Debug, Default)]
struct List {
    ready: VecDeque<Blank>,
    making: usize,
    waiters: VecDeque<Waiter>,
    /// Somebody fills it up soon.
    filling: bool,
    used: u64,
}

impl List {
    /// How many of `keep` there neither are nor will be, when who waits has got one.
    fn lacks(&self, keep: usize) -> usize {
        (keep + self.waiters.len()).saturating_sub(self.ready.len() + self.making)
    }
}

/// What somebody gets who wants a blank.
#[derive(Debug)]
pub(super) enum Taken {
    /// One that waited.
    Blank(Blank),
    /// A place in the line for the next one.
    Place(oneshot::Receiver<Result<Blank, StartError>>),
}

#[derive(Debug)]
struct Entry {
    spec: Arc<Spec>,
    making: bool,
    sockets: Arc<Sockets>,
    exit: watch::Sender<Option<Exit>>,
    /// Who waits for the kernel's view, in the order of asking.
    lookers: VecDeque<oneshot::Sender<View>>,
}

/// The kernel's view of a process, or `errno`.
pub(super) type View = Result<Box<KernelView>, i32>;

#[derive(Debug, Default)]
struct Inner {
    next: BlankId,
    tick: u64,
    lists: HashMap<Arc<Spec>, List>,
    entries: HashMap<BlankId, Entry>,
    gone: Option<String>,
}

impl Inner {
    /// Orders blanks for `spec`, so that `keep` will wait when each who is in the line has got one.
    fn make(&mut self, spec: &Arc<Spec>, keep: usize, mut order: impl FnMut(ToLauncher)) {
        let Some(list) = self.lists.get_mut(spec) else { return };
        let wanted = list.lacks(keep);
        list.making += wanted;
        for _ in 0..wanted {
            self.next += 1;
            let (exit, _) = watch::channel(None);
            let entry = Entry {
                spec: Arc::clone(spec),
                making: true,
                sockets: Arc::new(Sockets::default()),
                exit,
                lookers: VecDeque::new(),
            };
            self.entries.insert(self.next, entry);
            order(ToLauncher::Make { blank: self.next, spec: Spec::clone(spec) });
        }
    }
}

/// What is known of all blanks and processes.
#[derive(Debug)]
pub(super) struct Ready {
    inner: Mutex<Inner>,
    /// Blanks kept ready for each spec.
    keep: usize,
    /// Specs for which blanks are kept; those used last.
    specs: usize,
}

impl Ready {
    pub(super) fn new(keep: usize, specs: usize) -> Self {
        Self { inner: Mutex::default(), keep, specs }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a waiting blank, or a place in the line for the next one; `order` gets what the launcher is to
    /// make for who waits. True when the caller must [`fill`](Self::fill) a moment later.
    pub(super) fn take(
        &self,
        spec: &Arc<Spec>,
        order: impl FnMut(ToLauncher),
    ) -> Result<(Taken, bool), StartError> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(reason) = &inner.gone {
            return Err(StartError::LauncherGone(reason.clone()));
        }
        inner.tick += 1;
        let list = inner.lists.entry(Arc::clone(spec)).or_default();
        list.used = inner.tick;
        let taken = match list.ready.pop_front() {
            Some(blank) => Taken::Blank(blank),
            None => {
                let (sender, receiver) = oneshot::channel();
                list.waiters.push_back(sender);
                Taken::Place(receiver)
            }
        };
        let fill = self.keep > 0 && !list.filling;
        list.filling |= fill;
        inner.make(spec, 0, order);
        self.forget_oldest(inner);
        Ok((taken, fill))
    }

    /// Has made what is missing of the blanks that are kept for `spec`.
    pub(super) fn fill(&self, spec: &Arc<Spec>, order: impl FnMut(ToLauncher)) {
        let mut inner = self.lock();
        if let Some(list) = inner.lists.get_mut(spec) {
            list.filling = false;
            inner.make(spec, self.keep, order);
        }
    }

    /// Gives up the blanks of the spec that was not used for longest when there are too many specs;
    /// a blank whose start socket closes ends by itself.
    fn forget_oldest(&self, inner: &mut Inner) {
        while inner.lists.len() > self.specs {
            let idle = inner.lists.iter().filter(|(_, list)| list.waiters.is_empty() && list.making == 0);
            let Some(oldest) = idle.min_by_key(|(_, list)| list.used).map(|(spec, _)| Arc::clone(spec))
            else {
                return;
            };
            inner.lists.remove(&oldest);
        }
    }

    /// Where the sockets of a blank go.
    pub(super) fn sockets(&self, id: BlankId) -> Option<Arc<Sockets>> {
        self.lock().entries.get(&id).map(|entry| Arc::clone(&entry.sockets))
    }

    /// A place in the line for the kernel's view of a process; `None` when it is over. The place is
    /// lost when it ends.
    pub(super) fn look(&self, id: BlankId) -> Option<oneshot::Receiver<View>> {
        let mut inner = self.lock();
        let entry = inner.entries.get_mut(&id)?;
        let (sender, receiver) = oneshot::channel();
        entry.lookers.push_back(sender);
        Some(receiver)
    }

    /// The launcher answered one who looks.
    pub(super) fn seen(&self, id: BlankId, view: View) {
        let looker = self.lock().entries.get_mut(&id).and_then(|entry| entry.lookers.pop_front());
        if let Some(looker) = looker {
            let _ = looker.send(view); // who asked may have left
        }
    }

    /// A blank said that it waits.
    pub(super) fn waits(&self, id: BlankId, pid: i32, uid: u32, start: OwnedFd, mut fds: Vec<OwnedFd>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(entry) = inner.entries.get_mut(&id) else { return };
        let listener = if fds.is_empty() { None } else { Some(fds.remove(0)) };
        entry.sockets.add(fds);
        let mut blank = Blank {
            id,
            pid,
            uid,
            start,
            listener,
            sockets: Arc::clone(&entry.sockets),
            exit: entry.exit.subscribe(),
        };
        let was_making = std::mem::take(&mut entry.making);
        let Some(list) = inner.lists.get_mut(&entry.spec) else { return };
        list.making -= usize::from(was_making);
        while let Some(waiter) = list.waiters.pop_front() {
            match waiter.send(Ok(blank)) {
                Ok(()) => return,
                Err(Ok(back)) => blank = back, // that one no longer waits
                Err(Err(_)) => return,
            }
        }
        list.ready.push_back(blank);
    }

    /// A blank could not be made. One that waits for it gets the reason; nothing is made again until
    /// somebody asks.
    pub(super) fn failed(&self, id: BlankId, error: &StartError) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(entry) = inner.entries.get_mut(&id) else { return };
        if std::mem::take(&mut entry.making) {
            Self::not_made(&mut inner.lists, &entry.spec, error);
        }
    }

    fn not_made(lists: &mut HashMap<Arc<Spec>, List>, spec: &Arc<Spec>, error: &StartError) {
        let Some(list) = lists.get_mut(spec) else { return };
        list.making -= 1;
        while list.waiters.len() > list.making {
            if let Some(waiter) = list.waiters.pop_front() {
                let _ = waiter.send(Err(error.clone())); // nobody waits any more: nothing to tell
            }
        }
    }

    /// There never was such a process: forget it.
    pub(super) fn never_was(&self, id: BlankId, error: &StartError) {
        self.failed(id, error);
        self.lock().entries.remove(&id);
    }

    /// A process is over.
    pub(super) fn exited(&self, exited: &Exited) {
        let exit = Exit {
            status: exited.status,
            oom_killed: exited.oom_killed,
            cpu: Duration::from_micros(exited.cpu_us),
            memory_peak: exited.memory_peak,
        };
        let mut guard = self.lock();
        let inner = &mut *guard;
        let Some(entry) = inner.entries.remove(&exited.blank) else { return };
        entry.sockets.fail(nix::libc::ENOTCONN);
        entry.exit.send_replace(Some(exit));
        if entry.making {
            Self::not_made(&mut inner.lists, &entry.spec, &StartError::Died(exit));
        } else if let Some(list) = inner.lists.get_mut(&entry.spec) {
            list.ready.retain(|blank| blank.id != exited.blank);
        }
    }

    /// The launcher is gone, and every process with it.
    pub(super) fn gone(&self, reason: &str) {
        let mut inner = self.lock();
        inner.gone = Some(reason.to_owned());
        let lists = std::mem::take(&mut inner.lists);
        let entries = std::mem::take(&mut inner.entries);
        drop(inner);
        for waiter in lists.into_values().flat_map(|list| list.waiters) {
            let _ = waiter.send(Err(StartError::LauncherGone(reason.to_owned())));
        }
        for entry in entries.into_values() {
            entry.sockets.fail(nix::libc::ENOTCONN);
            entry.exit.send_replace(Some(Exit::LOST));
        }
    }
}
