//! Connections that wait for their next request.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use cloister_policies::egress::{Host, Scheme};
use futures_util::FutureExt as _;

use crate::client::Sender;
use crate::registry::WorkerId;

/// Which requests may share a connection: those of one version of one Worker to one server at one
/// address. (And on one thread, as a connection lives in one runtime.)
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) worker: WorkerId,
    pub(super) version: Arc<str>,
    pub(super) scheme: Scheme,
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) address: IpAddr,
    pub(super) thread: ThreadId,
}

/// Longest that a connection waits: less than servers usually do.
const LONGEST: Duration = Duration::from_secs(30);
/// Connections of one Worker that wait: as many as it may have requests under way, so that none is closed which
/// the next request could use.
const PER_WORKER: usize = 256;
/// Connections that wait in all.
const IN_ALL: usize = 1024;
/// Time between two looks at all of them while there are too many.
const LOOK: Duration = Duration::from_secs(1);

/// The waiting connections.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_key: HashMap<Key, Vec<(Instant, Sender)>>,
    by_worker: HashMap<WorkerId, usize>,
    count: usize,
    swept: Option<Instant>,
}

impl Idle {
    /// A connection that is ready, if there is one.
    pub(super) fn take(&self, key: &Key) -> Option<Sender> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The youngest first: it is the likeliest to be open still.
        while let Some((since, mut sender)) = waiting.pop(key) {
            if since.elapsed() < LONGEST && matches!(sender.ready().now_or_never(), Some(Ok(()))) {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose response is over.
    pub(super) fn put(&self, key: Key, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = if waiting.count >= IN_ALL { LOOK } else { LONGEST };
        if waiting.swept.is_none_or(|swept| now.duration_since(swept) >= pause) {
            waiting.sweep(now);
        }
        waiting.push(key, now, sender);
    }
}

impl Waiting {
    fn pop(&mut self, key: &Key) -> Option<(Instant, Sender)> {
        let list = self.by_key.get_mut(key)?;
        let youngest = list.pop();
        if list.is_empty() {
            self.by_key.remove(key);
        }
        if youngest.is_some() {
            self.forget(&key.worker);
        }
        youngest
    }

    /// One of `worker` waits no more.
    fn forget(&mut self, worker: &WorkerId) {
        self.count = self.count.saturating_sub(1);
        if let Some(own) = self.by_worker.get_mut(worker) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_worker.remove(worker);
            }
        }
    }

    /// Keeps it unless there are too many.
    fn push(&mut self, key: Key, now: Instant, sender: Sender) {
        let own = self.by_worker.get(&key.worker).copied().unwrap_or_default();
        if own >= PER_WORKER || (self.count >= IN_ALL && !self.make_room(own)) {
            return;
        }
        self.count += 1;
        self.by_worker.insert(key.worker.clone(), own + 1);
        self.by_key.entry(key).or_default().push((now, sender));
    }

    /// Lets go of the oldest of the Worker that has most, for one that has `own`.
    fn make_room(&mut self, own: usize) -> bool {
        let Some((worker, most)) = self.by_worker.iter().max_by_key(|(_, count)| **count) else {
            return false;
        };
        // Of two that have as many, neither takes the other's.
        if *most <= own + 1 {
            return false;
        }
        let worker = worker.clone();
        let theirs = self.by_key.iter().filter(|(key, _)| key.worker == worker);
        let oldest = theirs.min_by_key(|(_, list)| list.first().map(|(since, _)| *since));
        let Some(key) = oldest.map(|(key, _)| key.clone()) else { return false };
        let Some(list) = self.by_key.get_mut(&key) else { return false };
        list.remove(0);
        if list.is_empty() {
            self.by_key.remove(&key);
        }
        self.forget(&worker);
        true
    }

    /// Lets go of those that waited for too long, or were closed.
    fn sweep(&mut self, now: Instant) {
        self.swept = Some(now);
        self.count = 0;
        self.by_worker.clear();
        let (count, by_worker) = (&mut self.count, &mut self.by_worker);
        self.by_key.retain(|key, list| {
            list.retain(|(since, sender)| now.duration_since(*since) < LONGEST && !sender.is_closed());
            if !list.is_empty() {
                *count += list.len();
                *by_worker.entry(key.worker.clone()).or_default() += list.len();
            }
            !list.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn key(worker: &str, port: u16) -> Key {
        Key {
            worker: WorkerId { namespace: None, name: worker.into() },
            version: "1".into(),
            scheme: Scheme::Http,
            host: Host::parse("a.test").unwrap(),
            port,
            address: IpAddr::from([127, 0, 0, 1]),
            thread: std::thread::current().id(),
        }
    }

    /// A connection that is ready for a request, and its far end.
    async fn connection() -> (Sender, DuplexStream) {
        let (near, far) = duplex(64);
        let mut sender = crate::client::handshake(near, 8).await.unwrap();
        sender.ready().await.unwrap();
        (sender, far)
    }

    async fn put(idle: &Idle, key: Key, count: usize) -> Vec<DuplexStream> {
        let mut ends = Vec::new();
        for _ in 0..count {
            let (sender, far) = connection().await;
            idle.put(key.clone(), sender);
            ends.push(far);
        }
        ends
    }

    /// What waits of each Worker, held against every count there is.
    fn waiting(idle: &Idle, workers: &[&str]) -> Vec<usize> {
        let waiting = idle.0.lock().unwrap();
        let of = |worker: &str| {
            let theirs = waiting.by_key.iter().filter(|(key, _)| &*key.worker.name == worker);
            let count = theirs.map(|(_, list)| list.len()).sum::<usize>();
            let id = WorkerId { namespace: None, name: worker.into() };
            assert_eq!(waiting.by_worker.get(&id).copied().unwrap_or_default(), count);
            count
        };
        let counts: Vec<_> = workers.iter().map(|worker| of(worker)).collect();
        assert_eq!(waiting.count, counts.iter().sum::<usize>());
        assert!(waiting.by_key.values().all(|list| !list.is_empty()));
        counts
    }

    #[tokio::test]
    async fn one_that_is_open_is_used_again() {
        let idle = Idle::default();
        assert!(idle.take(&key("a", 1)).is_none());
        let mut ends = put(&idle, key("a", 1), 3).await;
        assert!(idle.take(&key("a", 2)).is_none());
        assert!(idle.take(&key("b", 1)).is_none());
        // The youngest was closed meanwhile.
        drop(ends.pop());
        tokio::task::yield_now().await;
        assert!(idle.take(&key("a", 1)).is_some());
        assert_eq!(waiting(&idle, &["a"]), [1]);
        assert!(idle.take(&key("a", 1)).is_some());
        assert_eq!(waiting(&idle, &["a"]), [0]);
        assert!(idle.take(&key("a", 1)).is_none());
    }

    #[tokio::test]
    async fn those_that_are_closed_or_old_are_let_go() {
        let idle = Idle::default();
        let mut ends = put(&idle, key("a", 1), 2).await;
        ends.extend(put(&idle, key("b", 1), 1).await);
        drop(ends.drain(..1));
        tokio::task::yield_now().await;
        let now = Instant::now();
        idle.0.lock().unwrap().sweep(now);
        assert_eq!(waiting(&idle, &["a", "b"]), [1, 1]);
        idle.0.lock().unwrap().sweep(now + LONGEST);
        assert_eq!(waiting(&idle, &["a", "b"]), [0, 0]);
    }

    #[tokio::test]
    async fn each_worker_has_a_share() {
        let idle = Idle::default();
        let mut ends = Vec::new();
        // Each to servers of its own.
        for (port, worker) in (1..).zip(["a", "b", "c", "d", "a"]) {
            ends.extend(put(&idle, key(worker, port), PER_WORKER).await);
        }
        let all = ["a", "b", "c", "d", "e"];
        assert_eq!(waiting(&idle, &all), [PER_WORKER, PER_WORKER, PER_WORKER, PER_WORKER, 0]);
        ends.extend(put(&idle, key("e", 1), PER_WORKER).await);
        let counts = waiting(&idle, &all);
        assert_eq!(counts.iter().sum::<usize>(), IN_ALL);
        assert!(counts.iter().all(|count| (IN_ALL / 5..=IN_ALL / 5 + 1).contains(count)), "{counts:?}");
        assert!(idle.take(&key("e", 1)).is_some());
    }
}
