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
/// Connections that wait for one key.
const PER_KEY: usize = 16;
/// Connections that wait in all.
const IN_ALL: usize = 1024;

/// The waiting connections.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    by_key: HashMap<Key, Vec<(Instant, Sender)>>,
    count: usize,
    swept: Option<Instant>,
}

impl Idle {
    /// A connection that is ready, if there is one.
    pub(super) fn take(&self, key: &Key) -> Option<Sender> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut *waiting;
        let list = waiting.by_key.get_mut(key)?;
        let mut found = None;
        // The youngest first: it is the likeliest to be open still.
        while let Some((since, mut sender)) = list.pop() {
            waiting.count = waiting.count.saturating_sub(1);
            if since.elapsed() < LONGEST && matches!(sender.ready().now_or_never(), Some(Ok(()))) {
                found = Some(sender);
                break;
            }
        }
        if list.is_empty() {
            waiting.by_key.remove(key);
        }
        found
    }

    /// Keeps a connection whose response is over.
    pub(super) fn put(&self, key: Key, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let now = Instant::now();
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = &mut *waiting;
        let due = waiting.swept.is_none_or(|swept| now.duration_since(swept) >= LONGEST);
        if due || waiting.count >= IN_ALL {
            waiting.swept = Some(now);
            waiting.by_key.retain(|_, list| {
                list.retain(|(since, sender)| now.duration_since(*since) < LONGEST && !sender.is_closed());
                !list.is_empty()
            });
            waiting.count = waiting.by_key.values().map(Vec::len).sum();
        }
        if waiting.count >= IN_ALL {
            return;
        }
        let list = waiting.by_key.entry(key).or_default();
        if list.len() < PER_KEY {
            list.push((now, sender));
            waiting.count += 1;
        }
    }
}
