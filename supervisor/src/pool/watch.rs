//! Checks invocations that last: one timer a thread, whatever the number of invocations.
//!
//! A short invocation pays for its entry in a list and no timer: the timer that runs is always due
//! before any new entry is, so it rarely has to be set anew.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::sync::Notify;

/// Something that wants to be looked at later.
pub trait Watched: Send + Sync {
    /// Looks; returns when to look again, `None` for never.
    fn check(&self, now: Instant) -> Option<Instant>;
}

thread_local! {
    static LOCAL: RefCell<Option<(Arc<Watch>, tokio::task::JoinHandle<()>)>> = const { RefCell::new(None) };
}

/// The list and the timer of one thread.
#[derive(Default)]
pub struct Watch {
    state: Mutex<State>,
    sooner: Notify,
}

#[derive(Default)]
struct State {
    entries: Slab<(Instant, Weak<dyn Watched>)>,
    next: Option<Instant>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// A place in the list; dropping it leaves the list.
#[derive(Debug)]
pub struct Ticket {
    watch: Arc<Watch>,
    key: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let entry = self.watch.state().entries.try_remove(self.key);
        drop(entry);
    }
}

impl Watch {
    /// The watch of this thread; must be called within its runtime.
    #[must_use]
    pub fn local() -> Arc<Self> {
        LOCAL.with_borrow_mut(|local| {
            if let Some((watch, task)) = local
                && !task.is_finished()
            {
                return Arc::clone(watch);
            }
            let watch = Arc::new(Self::default());
            let task = tokio::spawn(Arc::clone(&watch).run());
            *local = Some((Arc::clone(&watch), task));
            watch
        })
    }

    /// Has `watched` looked at when `due`.
    pub fn add(self: &Arc<Self>, watched: Weak<dyn Watched>, due: Instant) -> Ticket {
        let mut state = self.state();
        let key = state.entries.insert((due, watched));
        if state.next.is_none_or(|next| due < next) {
            state.next = Some(due);
            drop(state);
            self.sooner.notify_one();
        }
        Ticket { watch: Arc::clone(self), key }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>) {
        loop {
            let next = self.state().next;
            match next {
                None => self.sooner.notified().await,
                Some(next) => {
                    let sleep = tokio::time::sleep_until(next.into());
                    tokio::select! {
                        () = sleep => self.check_all(),
                        () = self.sooner.notified() => {}
                    }
                }
            }
        }
    }

    fn check_all(&self) {
        let now = Instant::now();
        let due: Vec<_> = {
            let state = self.state();
            let due = state.entries.iter().filter(|(_, (due, _))| *due <= now);
            due.map(|(key, (_, watched))| (key, Weak::clone(watched))).collect()
        };
        // Without the lock: a check may end an invocation, which leaves the list.
        let mut again = Vec::with_capacity(due.len());
        for (key, watched) in due {
            let next = watched.upgrade().and_then(|watched| watched.check(now));
            again.push((key, watched, next.unwrap_or(now + Duration::from_secs(3600))));
        }
        let mut state = self.state();
        for (key, watched, due) in again {
            if let Some(entry) = state.entries.get_mut(key)
                && entry.1.ptr_eq(&watched)
            {
                entry.0 = due;
            }
        }
        state.next = state.entries.iter().map(|(_, (due, _))| *due).min();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Counting(AtomicU32, Notify);

    impl Watched for Counting {
        fn check(&self, now: Instant) -> Option<Instant> {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.notify_one();
            Some(now + Duration::from_millis(1))
        }
    }

    #[tokio::test]
    async fn looks_again_until_the_ticket_is_dropped() {
        let watched = Arc::new(Counting(AtomicU32::new(0), Notify::new()));
        let weak: Weak<dyn Watched> = Arc::downgrade(&watched) as Weak<dyn Watched>;
        let watch = Watch::local();
        let far = watch.add(Weak::clone(&weak), Instant::now() + Duration::from_secs(60));
        let near = watch.add(weak, Instant::now());
        watched.1.notified().await;
        watched.1.notified().await;
        drop(near);
        assert!(watched.0.load(Ordering::Relaxed) >= 2);
        drop(far);
        assert!(watch.state().entries.is_empty());
    }
}
