//! The connection to the launcher, served by a thread of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cloister_ipc::launch::{
    Configure, Failure, FromBlank, FromLauncher, Machine, Stage, ToBlank, ToLauncher,
};
use cloister_ipc::{codec, descriptors, limits::LAUNCH_BYTES};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{Shutdown, shutdown};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::StartError;
use super::filters::Filters;
use super::reactor::register;
use super::ready::Ready;

/// How long the launcher may take to answer its configuration.
const CONFIGURE_TIME: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// How Workers are started.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the launcher is told.
    pub configure: Configure,
    /// Blanks kept ready for each spec in use.
    pub blanks: usize,
    /// Specs for which blanks are kept.
    pub specs: usize,
    /// Longest time from the wish to start to exec.
    pub start_timeout: Duration,
}

/// The handle to the launcher: `Send`, `Sync`, cheap to clone, usable from any runtime.
#[derive(Debug, Clone)]
pub struct Launcher {
    pub(super) ready: Arc<Ready>,
    pub(super) filters: Arc<Filters>,
    pub(super) machine: Arc<Machine>,
    pub(super) start_timeout: Duration,
    pub(super) commands: mpsc::UnboundedSender<ToLauncher>,
    gone: watch::Receiver<Option<Arc<str>>>,
    stop: Arc<watch::Sender<bool>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Launcher {
    /// Configures the launcher behind `socket` and waits (blocking, at most 20 s) until it is ready.
    /// An error names the wall that could not be raised, why, and what to do.
    pub fn connect(socket: OwnedFd, options: Options) -> Result<Self, StartError> {
        let configure = ToLauncher::Configure(options.configure);
        send_now(&socket, &configure).map_err(StartError::io("configuring the launcher"))?;
        let machine = match first_answer(&socket)? {
            FromLauncher::Ready(machine) => machine,
            FromLauncher::Refused(failure) => return Err(StartError::Failed(failure)),
            _ => return Err(StartError::LauncherGone("it answered out of turn".into())),
        };
        set_nonblocking(&socket).map_err(StartError::io("the launcher's socket"))?;
        let (commands, orders) = mpsc::unbounded_channel();
        let (gone_sender, gone) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let ready = Arc::new(Ready::new(options.blanks, options.specs));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(StartError::io("a runtime for the launcher's socket"))?;
        let service = Service { ready: Arc::clone(&ready), orders, stopped };
        let thread = std::thread::Builder::new()
            .name("launcher".into())
            .spawn(move || {
                let ready = Arc::clone(&service.ready);
                let reason = runtime.block_on(service.run(socket));
                ready.gone(&reason);
                gone_sender.send_replace(Some(reason.into()));
            })
            .map_err(StartError::io("a thread for the launcher's socket"))?;
        Ok(Self {
            ready,
            filters: Arc::new(Filters::default()),
            machine: Arc::new(machine),
            start_timeout: options.start_timeout,
            commands,
            gone,
            stop: Arc::new(stop),
            thread: Arc::new(Mutex::new(Some(thread))),
        })
    }

    /// What the launcher found on this machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Resolves with the reason when the launcher is gone, and every Worker with it. The supervisor
    /// can't go on then.
    pub async fn gone(&self) -> Arc<str> {
        let mut gone = self.gone.clone();
        let known = gone.wait_for(Option::is_some).await;
        known.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "its thread ended".into())
    }

    /// Ends the launcher and with it every Worker; returns when all of them are dead, and the thread
    /// that served its socket is over.
    pub async fn shutdown(&self) {
        self.stop.send_replace(true);
        self.gone().await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It said so with its last act: this does not wait for anything.
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the launcher's socket panicked");
        }
    }
}

struct Service {
    ready: Arc<Ready>,
    orders: mpsc::UnboundedReceiver<ToLauncher>,
    stopped: watch::Receiver<bool>,
}

impl Service {
    /// Serves until the launcher is gone; the reason.
    async fn run(mut self, socket: OwnedFd) -> String {
        let socket = match register(socket, Interest::READABLE | Interest::WRITABLE) {
            Ok(socket) => Arc::new(socket),
            Err(error) => return error.to_string(),
        };
        let reader = tokio::spawn(read_all(Arc::clone(&socket), Arc::clone(&self.ready)));
        let writer = tokio::spawn(async move {
            loop {
                tokio::select! {
                    order = self.orders.recv() => match order {
                        Some(order) => if let Err(error) = send(&socket, &order).await {
                            tracing::error!(%error, "an order could not be sent to the launcher");
                            break;
                        },
                        None => break,
                    },
                    () = async { drop(self.stopped.wait_for(|stop| *stop).await) } => break,
                }
            }
            // Its end of file: the launcher kills what lives, exits, and the reader sees that.
            let _ = shutdown(&*socket, Shutdown::Write);
        });
        let reason = reader.await.unwrap_or_else(|error| error.to_string());
        writer.abort();
        reason
    }
}

/// Takes the launcher's messages until its end; the reason.
async fn read_all(socket: Arc<AsyncFd<OwnedFd>>, ready: Arc<Ready>) -> String {
    let mut buffer = vec![0; LAUNCH_BYTES];
    loop {
        let received = socket
            .async_io(Interest::READABLE, |socket| descriptors::receive(socket, &mut buffer))
            .await
            .map(|(length, fds)| (buffer.get(..length).unwrap_or_default(), fds));
        let (record, fds) = match received {
            Ok(([], _)) => return "it exited".into(),
            Ok(received) => received,
            Err(error) => return error.to_string(),
        };
        match codec::decode(record, LAUNCH_BYTES) {
            Ok(message) => take(&ready, message, fds),
            Err(error) => return error.to_string(),
        }
    }
}

fn take(ready: &Arc<Ready>, message: FromLauncher, mut fds: Vec<OwnedFd>) {
    match message {
        FromLauncher::Made { blank, pid, uid } => match fds.pop() {
            Some(start) => {
                tokio::spawn(until_ready(Arc::clone(ready), blank, pid, uid, start));
            }
            None => ready.failed(blank, &protocol("a blank came without its socket")),
        },
        FromLauncher::MakeFailed { blank, failure } => {
            tracing::error!(%failure, fix = failure.fix(), "a blank could not be made");
            ready.never_was(blank, &StartError::Failed(failure));
        }
        FromLauncher::Sockets { blank } => {
            if let Some(sockets) = ready.sockets(blank) {
                sockets.add(fds);
            }
        }
        FromLauncher::SocketsFailed { blank, errno } => {
            if let Some(sockets) = ready.sockets(blank) {
                sockets.fail(errno);
            }
        }
        FromLauncher::Inspected { blank, view } => ready.seen(blank, Ok(view)),
        FromLauncher::InspectFailed { blank, errno } => ready.seen(blank, Err(errno)),
        FromLauncher::Exited(exited) => ready.exited(&exited),
        FromLauncher::Ready(_) | FromLauncher::Refused(_) => {
            tracing::error!("the launcher repeated its first answer");
        }
    }
}

/// Waits for a blank to say that it is ready.
async fn until_ready(ready: Arc<Ready>, id: u64, pid: i32, uid: u32, start: OwnedFd) {
    match first_word(start).await {
        Ok((start, fds)) => ready.waits(id, pid, uid, start, fds),
        Err(error) => {
            tracing::error!(%error, "a blank did not become ready");
            ready.failed(id, &error);
        }
    }
}

async fn first_word(start: OwnedFd) -> Result<(OwnedFd, Vec<OwnedFd>), StartError> {
    let what = "waiting for a blank";
    set_nonblocking(&start).map_err(StartError::io(what))?;
    let start = register(start, Interest::READABLE).map_err(StartError::io(what))?;
    let mut buffer = vec![0; 4096];
    let (length, fds) = start
        .async_io(Interest::READABLE, |socket| descriptors::receive(socket, &mut buffer))
        .await
        .map_err(StartError::io(what))?;
    match codec::decode(buffer.get(..length).unwrap_or_default(), LAUNCH_BYTES) {
        Ok(FromBlank::Ready) => Ok((start.into_inner(), fds)),
        Ok(FromBlank::Failed(failure)) => Err(StartError::Failed(failure)),
        Ok(FromBlank::Raised { .. }) => Err(protocol("a blank spoke out of turn")),
        Err(_) if length == 0 => Err(protocol("a blank died while it raised its walls")),
        Err(error) => Err(protocol(&error.to_string())),
    }
}

pub(super) fn protocol(what: &str) -> StartError {
    StartError::Failed(Failure { stage: Stage::Protocol, errno: 0, what: what.into() })
}

pub(super) fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(socket)?;
    Ok(fcntl_setfl(socket, flags | OFlags::NONBLOCK)?)
}

fn encode<M: serde::Serialize>(message: &M) -> io::Result<Vec<u8>> {
    codec::encode(message, LAUNCH_BYTES).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn send_now(socket: &OwnedFd, message: &ToLauncher) -> io::Result<()> {
    descriptors::send(socket, &encode(message)?, &[])
}

async fn send(socket: &AsyncFd<OwnedFd>, message: &ToLauncher) -> io::Result<()> {
    let record = encode(message)?;
    socket.async_io(Interest::WRITABLE, |socket| descriptors::send(socket, &record, &[])).await
}

/// Encodes what a blank becomes.
pub(super) fn encode_start(start: ToBlank) -> Result<Vec<u8>, StartError> {
    codec::encode(&start, LAUNCH_BYTES).map_err(|error| {
        StartError::Arguments(format!(
            "arguments and variables are too long to be passed to a process: {error}"
        ))
    })
}

fn first_answer(socket: &OwnedFd) -> Result<FromLauncher, StartError> {
    let what = "waiting for the launcher";
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&CONFIGURE_TIME)).map_err(|error| StartError::io(what)(error.into()))?;
    if ready == 0 {
        return Err(StartError::LauncherGone("it did not answer its configuration in 20 s".into()));
    }
    let mut buffer = vec![0; LAUNCH_BYTES];
    let (length, _) = descriptors::receive(socket, &mut buffer).map_err(StartError::io(what))?;
    if length == 0 {
        return Err(StartError::LauncherGone("it exited before it was ready".into()));
    }
    codec::decode(buffer.get(..length).unwrap_or_default(), LAUNCH_BYTES)
        .map_err(|error| StartError::LauncherGone(error.to_string()))
}
