//! Write coalescing: connections with unsent messages are flushed when the thread has nothing
//! more to do.
//!
//! The runtime calls [`at_park`]. A thread that is never idle flushes when the oldest unsent message
//! is older than [`PATIENCE`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Connection;

/// Longest a message waits on a busy thread.
const PATIENCE: Duration = Duration::from_micros(300);

thread_local! {
    static DIRTY: RefCell<Vec<Arc<Connection>>> = const { RefCell::new(Vec::new()) };
    static OLDEST: Cell<Option<Instant>> = const { Cell::new(None) };
    static HOOKED: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread's runtime calls [`at_park`].
pub fn hook() {
    HOOKED.set(true);
}

/// Flushes everything; the runtime calls it before its thread sleeps.
pub fn at_park() {
    loop {
        let Some(connection) = DIRTY.with_borrow_mut(Vec::pop) else { break };
        connection.flush();
    }
    OLDEST.set(None);
}

/// Remembers a connection that has become dirty. False when nobody will flush it here.
pub(super) fn remember(connection: &Arc<Connection>) -> bool {
    if !HOOKED.get() {
        return false;
    }
    DIRTY.with_borrow_mut(|dirty| dirty.push(Arc::clone(connection)));
    if OLDEST.get().is_none() {
        OLDEST.set(Some(Instant::now()));
    }
    true
}

/// Flushes when the oldest unsent message has waited too long; `now` is a clock that was read
/// anyway.
pub fn tick(now: Instant) {
    if OLDEST.get().is_some_and(|oldest| now.saturating_duration_since(oldest) > PATIENCE) {
        at_park();
    }
}
