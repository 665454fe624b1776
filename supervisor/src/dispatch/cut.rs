//! Giving a call up from outside.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

/// Ends one wait early. Costs a call that nobody gives up hardly anything.
#[derive(Debug, Default)]
pub(super) struct Cut {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    /// Ends the wait, now or when it begins.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// What `future` gives; `None` when it is cut before.
    pub(super) async fn unless<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            // In this order, or a cut between the two would wake nobody.
            self.waker.register(context.waker());
            if self.is_cut.load(Ordering::Acquire) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Cut;

    #[tokio::test]
    async fn a_wait_is_cut_before_and_while_it_waits() {
        let cut = Arc::new(Cut::default());
        assert_eq!(cut.unless(async { 1 }).await, Some(1));
        let waiting = tokio::spawn({
            let cut = Arc::clone(&cut);
            async move { cut.unless(std::future::pending::<()>()).await }
        });
        tokio::task::yield_now().await;
        cut.cut();
        assert_eq!(waiting.await.unwrap(), None);
        assert_eq!(cut.unless(std::future::pending::<()>()).await, None);
    }
}
