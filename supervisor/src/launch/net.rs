//! Sockets inside a Worker's network namespace.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use cloister_ipc::launch::{BlankId, PROXY_PORT, ToLauncher, WORKER_PORT};
use tokio::sync::{Notify, mpsc};

/// Sockets asked of the launcher at first; each further time twice as many. A server that keeps
/// connections open needs one or two, one that closes them needs one a request.
const FIRST_BATCH: u8 = 2;

/// Most sockets asked for at a time.
const LARGEST_BATCH: u8 = 16;

#[derive(Debug, Default)]
struct Stock {
    sockets: VecDeque<OwnedFd>,
    asked: bool,
    batch: u8,
    failed: Option<i32>,
}

/// Where sockets of one Worker wait; shared with the launcher's client, which fills it.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    stock: Mutex<Stock>,
    changed: Notify,
}

impl Sockets {
    fn stock(&self) -> std::sync::MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what came.
    pub(super) fn add(&self, sockets: impl IntoIterator<Item = OwnedFd>) {
        let mut stock = self.stock();
        stock.sockets.extend(sockets);
        stock.asked = false;
        drop(stock);
        self.changed.notify_waiters();
    }

    /// No more will come: the process is over (`ENOTCONN`), or the launcher could not make them.
    pub(super) fn fail(&self, errno: i32) {
        let mut stock = self.stock();
        stock.failed = Some(errno);
        stock.asked = false;
        drop(stock);
        self.changed.notify_waiters();
    }
}

/// Sockets inside a Worker's network namespace; cheap to clone. It holds no namespace by itself: when the process is
/// over, [`socket`](Self::socket) fails, and what was taken before leads nowhere.
#[derive(Debug, Clone)]
pub struct Net {
    pub(super) blank: BlankId,
    pub(super) sockets: Arc<Sockets>,
    pub(super) listener: Arc<Mutex<Option<OwnedFd>>>,
    pub(super) commands: mpsc::UnboundedSender<ToLauncher>,
}

impl Net {
    /// The port an `http` Worker answers on.
    pub const PORT: u16 = WORKER_PORT;

    /// The port of the egress proxy.
    pub const PROXY_PORT: u16 = PROXY_PORT;

    /// A fresh unconnected non-blocking TCP (IPv4) socket. A few come with the process, more are
    /// asked for ahead of need.
    pub async fn socket(&self) -> io::Result<OwnedFd> {
        loop {
            let changed = self.sockets.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut stock = self.sockets.stock();
                if let Some(errno) = stock.failed {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                let taken = stock.sockets.pop_front();
                if stock.sockets.len() <= usize::from(stock.batch / 4) && !stock.asked {
                    stock.asked = true;
                    stock.batch = stock.batch.saturating_mul(2).clamp(FIRST_BATCH, LARGEST_BATCH);
                    let ask = ToLauncher::Sockets { blank: self.blank, count: stock.batch };
                    if self.commands.send(ask).is_err() {
                        return Err(io::ErrorKind::NotConnected.into());
                    }
                }
                if let Some(socket) = taken {
                    return Ok(socket);
                }
            }
            changed.await;
        }
    }

    /// The non-blocking socket that listens on `127.0.0.1:3128` in there. Once.
    #[must_use]
    pub fn take_proxy_listener(&self) -> Option<OwnedFd> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
