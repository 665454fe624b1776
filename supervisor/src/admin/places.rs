//! Places for connections: nobody is known before the first request is here, and who says nothing must not keep
//! all others out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Peer {
    /// A client over TCP, as [`peer`](crate::peer::peer) has it.
    Address(IpAddr),
    /// A local account.
    Account(u32),
}

/// So many places, of which one peer has a quarter, and no more than are left: some are left then however many
/// want all of them. Who is known has as many as there are.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    share: usize,
    taken: Arc<Mutex<Taken>>,
}

/// Places by peer, of those who have any.
type Taken = HashMap<Peer, usize>;

/// One place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    peer: Peer,
    known: AtomicBool,
    taken: Arc<Mutex<Taken>>,
    _free: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(places: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), share: places / 4, taken: Arc::default() }
    }

    /// Waits for a free place, whoever will have it.
    pub(super) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).acquire_owned().await.ok()
    }

    /// Gives a free place to `peer`, if it is known or has not its share already.
    pub(super) fn give(&self, free: OwnedSemaphorePermit, peer: Peer, known: bool) -> Option<Place> {
        let place = |known| {
            let known = AtomicBool::new(known);
            Place { peer, known, taken: Arc::clone(&self.taken), _free: free }
        };
        if known {
            return Some(place(true));
        }
        let mut taken = lock(&self.taken);
        let count = taken.get(&peer).copied().unwrap_or_default();
        if count >= self.share || count > self.free.available_permits() {
            return None;
        }
        taken.insert(peer, count + 1);
        Some(place(false))
    }

    /// Whether hardly any place is free.
    pub(super) fn are_scarce(&self) -> bool {
        self.free.available_permits() < self.share
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Place {
    /// Its peer has shown who it is: the place counts against nobody any more.
    pub(super) fn is_known(&self) {
        if self.known.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_known();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_peer_has_its_share_and_gives_it_back() {
        let places = Places::new(16);
        let give = async |account| {
            let free = places.free().await.unwrap();
            places.give(free, Peer::Account(account), false)
        };
        let mut kept = Vec::new();
        for _ in 0..4 {
            kept.push(give(1).await.unwrap());
        }
        assert!(give(1).await.is_none() && !places.are_scarce());
        kept[0].is_known();
        kept.push(give(1).await.expect("one of its places counts no more"));
        assert!(give(1).await.is_none());
        kept.push(places.give(places.free().await.unwrap(), Peer::Account(1), true).expect("it is known"));
        kept.clear();
        kept.push(give(1).await.unwrap());
        for account in 2..6 {
            while let Some(place) = give(account).await {
                kept.push(place);
            }
        }
        assert!(places.are_scarce());
        kept.push(give(9).await.expect("one that has none gets one"));
        drop(kept);
        assert!(lock(&places.taken).is_empty());
        assert_eq!(places.free.available_permits(), 16);
    }
}
