//! The launcher's loop.

mod blanks;
mod filter;
mod identity;
mod inspect;
mod machine;
mod make;
mod namespace;
mod sweep;
mod template;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cloister_ipc::launch::{BlankId, Configure, Failure, FromLauncher, Stage, ToLauncher, Wall};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::failure::at;
use blanks::Blanks;
use machine::Host;

/// How long to wait before a cgroup folder that was busy is tried again, milliseconds.
const RETRY_MS: u16 = 10;

/// How often it is tried again at the launcher's end.
const LAST_TRIES: u32 = 500;

/// Runs the launcher: standard input is its socket. Returns when the supervisor is gone and every
/// child is dead.
///
/// # Errors
/// What could not be prepared, or the message that made no sense.
pub fn run() -> Result<(), Failure> {
    cloister_sys::default_signals().map_err(at(Stage::Setup, "restoring signals"))?;
    let socket = cloister_sys::Stdin::take().map_err(at(Stage::Setup, "taking standard input"))?;
    let mut buffer = vec![0; LAUNCH_BYTES];
    let Some(ToLauncher::Configure(configure)) = hear(&socket, &mut buffer)? else {
        return Err(protocol("the first message was not the configuration"));
    };
    match Launcher::prepare(socket.as_fd(), configure) {
        Ok(launcher) => launcher.serve(&socket, &mut buffer),
        Err(failure) => {
            say(socket.as_fd(), &FromLauncher::Refused(failure.clone()), &[])?;
            Err(failure)
        }
    }
}

struct Launcher {
    host: Host,
    blanks: Blanks,
    signals: SignalFd,
    waived: Vec<Wall>,
}

impl Launcher {
    fn prepare(socket: BorrowedFd<'_>, configure: Configure) -> Result<Self, Failure> {
        if let Some(wall) = configure.waived.iter().find(|wall| !wall.waivable()) {
            return Err(protocol(&format!("wall `{wall}` can't be waived")));
        }
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            mask.add(signal);
        }
        mask.thread_block().map_err(at(Stage::Setup, "blocking signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(at(Stage::Setup, "signalfd"))?;
        let host = Host::prepare(&configure)?;
        let blanks = Blanks::new(&configure, host.identity.shared(&configure));
        say(socket, &FromLauncher::Ready(host.describe()), &[])?;
        Ok(Self { host, blanks, signals, waived: configure.waived })
    }

    fn serve(mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<(), Failure> {
        let ended = self.work(socket, buffer);
        // Whatever ended it: nothing outlives the launcher.
        self.end();
        ended
    }

    fn work(&mut self, socket: &OwnedFd, buffer: &mut [u8]) -> Result<(), Failure> {
        loop {
            let timeout =
                if self.blanks.has_busy() { PollTimeout::from(RETRY_MS) } else { PollTimeout::NONE };
            let mut ready = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(at(Stage::Setup, "poll")(error)),
            }
            let [message, signal] = ready.map(|ready| ready.any().unwrap_or(false));
            if signal && self.take_signals()? {
                return Ok(());
            }
            self.reap(socket.as_fd())?;
            self.blanks.remove_busy(&self.host.cgroups);
            if message {
                match hear(socket, buffer)? {
                    Some(message) => self.take(socket.as_fd(), message)?,
                    None => return Ok(()),
                }
            }
        }
    }

    /// True when it is told to end. (Interrupt and hang-up go to the whole terminal: the supervisor
    /// decides what they mean.)
    fn take_signals(&self) -> Result<bool, Failure> {
        while let Some(signal) = self.signals.read_signal().map_err(at(Stage::Setup, "signalfd"))? {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn reap(&mut self, socket: BorrowedFd<'_>) -> Result<(), Failure> {
        while let Some(reaped) = cloister_sys::reap().map_err(at(Stage::Setup, "wait4"))? {
            if let Some(exited) = self.blanks.ended(&self.host.cgroups, &reaped) {
                say(socket, &FromLauncher::Exited(exited), &[])?;
            }
        }
        self.blanks.sweep(&self.host.cgroups);
        Ok(())
    }

    fn take(&mut self, socket: BorrowedFd<'_>, message: ToLauncher) -> Result<(), Failure> {
        match message {
            ToLauncher::Configure(_) => Err(protocol("configured twice")),
            ToLauncher::Make { blank, spec } => {
                match make::make(&self.host, &mut self.blanks, &self.waived, blank, &spec) {
                    Ok(made) => {
                        let message = FromLauncher::Made { blank, pid: made.pid, uid: made.uid };
                        say(socket, &message, &[made.start.as_fd()])
                    }
                    Err(failure) => say(socket, &FromLauncher::MakeFailed { blank, failure }, &[]),
                }
            }
            ToLauncher::Sockets { blank, count } => {
                let pid = self.blanks.pid(blank);
                let sockets = pid.map_or_else(
                    || Err(io::Error::from_raw_os_error(nix::libc::ENOTCONN)),
                    |pid| namespace::sockets(&self.host, pid, count),
                );
                match sockets {
                    Ok(sockets) => {
                        let sockets: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                        say(socket, &FromLauncher::Sockets { blank }, &sockets)
                    }
                    Err(error) => {
                        let errno = self.unless_over(blank, &error, nix::libc::ENOTCONN);
                        say(socket, &FromLauncher::SocketsFailed { blank, errno }, &[])
                    }
                }
            }
            ToLauncher::Inspect { blank } => {
                let pid = self.blanks.pid(blank);
                let child = pid.and_then(|pid| Some((pid, self.blanks.uid_of(pid)?)));
                let view = child.map_or_else(
                    || Err(io::Error::from_raw_os_error(nix::libc::ESRCH)),
                    |(pid, uid)| inspect::view(&self.host, blank, pid, uid),
                );
                let message = match view {
                    Ok(view) => FromLauncher::Inspected { blank, view: Box::new(view) },
                    Err(error) => {
                        let errno = self.unless_over(blank, &error, nix::libc::ESRCH);
                        FromLauncher::InspectFailed { blank, errno }
                    }
                };
                say(socket, &message, &[])
            }
            ToLauncher::Kill { blank } => {
                self.blanks.kill(blank);
                Ok(())
            }
        }
    }

    /// The number of an error. One that says that a child's first thread has ended becomes `over`, and the child is
    /// ended whole: it can neither be reached nor looked at any more.
    fn unless_over(&self, blank: BlankId, error: &io::Error, over: i32) -> i32 {
        match error.raw_os_error() {
            Some(nix::libc::ENOENT | nix::libc::ESRCH) => {
                self.blanks.kill(blank);
                over
            }
            errno => errno.unwrap_or(nix::libc::EIO),
        }
    }

    /// Kills everything, waits for its end, and leaves no folder.
    fn end(mut self) {
        self.blanks.kill_all();
        while let Ok(Some(reaped)) = cloister_sys::wait_for(-1) {
            self.blanks.ended(&self.host.cgroups, &reaped);
        }
        self.blanks.give_up_sweeping(&self.host.cgroups);
        for _ in 0..LAST_TRIES {
            self.blanks.remove_busy(&self.host.cgroups);
            if !self.blanks.has_busy() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(RETRY_MS.into()));
        }
        if let Err(error) = self.host.cgroups.close() {
            eprintln!("sandbox-runner: cgroup folders are left, which the next start removes: {error}");
        }
    }
}

fn protocol(what: &str) -> Failure {
    Failure { stage: Stage::Protocol, errno: nix::libc::EPROTO, what: what.into() }
}

/// The next message; `None` at the end. Descriptors are never taken from the supervisor. The buffer is always the
/// same: each page of a new one would be copied, which it shares with the child that was made last.
fn hear(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Option<ToLauncher>, Failure> {
    let (length, _) = match descriptors::receive(socket, buffer) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ECONNRESET) => return Ok(None),
        other => other.map_err(at(Stage::Protocol, "receiving"))?,
    };
    if length == 0 {
        return Ok(None);
    }
    codec::decode(buffer.get(..length).unwrap_or_default(), LAUNCH_BYTES)
        .map(Some)
        .map_err(|error| protocol(&error.to_string()))
}

fn say(socket: BorrowedFd<'_>, message: &FromLauncher, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    let record = codec::encode(message, LAUNCH_BYTES).map_err(|error| protocol(&error.to_string()))?;
    match descriptors::send(socket, &record, fds) {
        // The supervisor is gone (the second: with messages it had not read): the next receive sees that too.
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EPIPE | nix::libc::ECONNRESET)) => {
            Ok(())
        }
        other => other.map_err(at(Stage::Protocol, "sending")),
    }
}
