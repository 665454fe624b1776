//! What is left to run of a request: its handler, its streamed body, its `wait_until` work.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::{BoxFuture, LocalBoxFuture};

use crate::invocation::{Hold, Invocation, Scope};

/// Work that may be handed over from another thread.
pub(crate) struct Spawned {
    pub(crate) work: BoxFuture<'static, ()>,
    pub(crate) hold: Hold,
    pub(crate) invocation: Arc<Invocation>,
}

impl fmt::Debug for Spawned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawned").field("request", &self.invocation.id).finish_non_exhaustive()
    }
}

/// A future in a box that is used again for the next one.
pub(crate) type Place<F> = Pin<Box<Option<F>>>;

/// What is left of a request.
pub(crate) enum Stage<F: Future> {
    /// Its handler.
    Handler(Place<F>),
    /// Its handler, behind a service that was not ready.
    Waiting(LocalBoxFuture<'static, F::Output>),
    /// Its streamed body; dropped before the hold.
    Body { future: LocalBoxFuture<'static, ()>, _hold: Hold },
    /// `wait_until` work; dropped before the hold.
    Work { future: BoxFuture<'static, ()>, _hold: Hold },
    /// Dropped or done.
    Gone,
}

/// Text of a panic.
pub(crate) struct Panicked(pub(crate) String);

/// Runs `code` of the tenant for `invocation`; a panic is its result, not ours.
pub(crate) fn guarded<T>(invocation: &Arc<Invocation>, code: impl FnOnce() -> T) -> Result<T, Panicked> {
    let _scope = Scope::enter(invocation.clone());
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| Panicked(panic_text(payload)))
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".to_owned());
    // The payload's own drop may panic again.
    let _dropped = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    format!("panicked: {text}")
}

/// A pending part of a request.
pub(crate) struct Task<F: Future> {
    pub(crate) invocation: Arc<Invocation>,
    pub(crate) stage: Stage<F>,
    waker: Option<Waker>,
}

/// How a task ended.
pub(crate) enum Ended<T> {
    /// The handler answered; with its box, to be used again.
    Answered(T),
    /// The handler panicked.
    Failed(Panicked),
    /// Nothing is to be done.
    Over,
}

impl<F: Future> Task<F> {
    pub(crate) fn new(invocation: Arc<Invocation>, stage: Stage<F>) -> Self {
        Self { invocation, stage, waker: None }
    }

    /// Drops what is left, and has the task collected.
    pub(crate) fn cancel(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Gone);
        // A panic while dropping is the tenant's own; the hook has told it.
        let _dropped = guarded(&self.invocation, || drop(stage));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A task never pins what it holds but by the boxes inside.
impl<F: Future> Unpin for Task<F> {}

impl<F: Future> Future for Task<F> {
    type Output = (Arc<Invocation>, Ended<F::Output>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = self.get_mut();
        let stage = &mut task.stage;
        let polled = guarded(&task.invocation, || match stage {
            Stage::Handler(place) => match place.as_mut().as_pin_mut() {
                Some(future) => future.poll(cx).map(Ended::Answered),
                None => Poll::Ready(Ended::Over),
            },
            Stage::Waiting(future) => future.as_mut().poll(cx).map(Ended::Answered),
            Stage::Body { future, .. } => future.as_mut().poll(cx).map(|()| Ended::Over),
            Stage::Work { future, .. } => future.as_mut().poll(cx).map(|()| Ended::Over),
            Stage::Gone => Poll::Ready(Ended::Over),
        });
        let ended = match polled {
            Ok(Poll::Pending) => {
                match &mut task.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            Ok(Poll::Ready(ended)) => ended,
            Err(panicked) if matches!(task.stage, Stage::Handler(_) | Stage::Waiting(_)) => {
                Ended::Failed(panicked)
            }
            Err(_) => Ended::Over,
        };
        task.waker = None;
        task.cancel();
        Poll::Ready((task.invocation.clone(), ended))
    }
}
