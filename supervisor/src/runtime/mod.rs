//! The data plane's threads: one current-thread runtime each, nothing shared on a request's way.
//!
//! The kernel spreads connections over the threads by `SO_REUSEPORT`; a connection, its requests and
//! their messages to Workers stay on the thread that accepted it. Why: docs/decisions/0001-runtime.md.

mod listen;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};

pub use listen::Listeners;

use crate::worker::ipc::flush;

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Number of the shard this thread is; 0 outside of any.
#[must_use]
pub fn shard() -> usize {
    SHARD.get()
}

/// Threads when the configuration does not say: half of the cores, at least one. A request costs the
/// supervisor several times what a small Worker spends on it, and the Workers need cores too.
#[must_use]
pub fn default_threads() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN)
}

/// What a shard's main task is given.
#[derive(Debug, Clone)]
pub struct Shard {
    /// Its number, from 0.
    pub index: usize,
    /// Becomes true when the supervisor is to end.
    pub stop: watch::Receiver<bool>,
}

/// The running threads.
#[derive(Debug)]
pub struct Shards {
    threads: Vec<JoinHandle<()>>,
    handles: Vec<tokio::runtime::Handle>,
    stop: watch::Sender<bool>,
}

impl Shards {
    /// Starts `count` threads that each run `main` until it returns.
    ///
    /// # Errors
    /// A thread or its runtime can't be made.
    pub fn start<F, Fut>(count: NonZeroUsize, main: F) -> io::Result<Self>
    where
        F: Fn(Shard) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()>,
    {
        let (stop, stopped) = watch::channel(false);
        let main = Arc::new(main);
        let mut shards = Self { threads: Vec::new(), handles: Vec::new(), stop };
        for index in 0..count.get() {
            let (main, shard) = (Arc::clone(&main), Shard { index, stop: stopped.clone() });
            let (ready, started) = oneshot::channel();
            let run = move || match runtime() {
                Ok(runtime) => {
                    SHARD.set(index);
                    flush::hook();
                    // The starter waits for it.
                    let _ = ready.send(Ok(runtime.handle().clone()));
                    runtime.block_on(main(shard));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            };
            shards.threads.push(std::thread::Builder::new().name(format!("shard-{index}")).spawn(run)?);
            let handle = started.blocking_recv().map_err(|_| io::Error::other("shard thread ended"))??;
            shards.handles.push(handle);
        }
        Ok(shards)
    }

    /// Handles on the runtimes, by shard.
    #[must_use]
    pub fn handles(&self) -> &[tokio::runtime::Handle] {
        &self.handles
    }

    /// Tells every shard to end; [`Self::join`] waits for it.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits for all threads.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn join(self) -> io::Result<()> {
        for thread in self.threads {
            thread.join().map_err(|_| io::Error::other("a data plane thread panicked"))?;
        }
        Ok(())
    }
}

/// A runtime whose thread flushes its connections to Workers before it sleeps.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(flush::at_park).build()
}
