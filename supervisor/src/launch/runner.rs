//! The launcher's process.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// A started launcher that was not configured yet.
#[derive(Debug)]
pub struct Runner {
    /// The process; it exits when [`socket`](Self::socket) is closed.
    pub child: Child,
    /// The supervisor's end of its socket.
    pub socket: OwnedFd,
}

impl Runner {
    /// Starts the launcher at `path`, with its socket as standard input. To be called before the
    /// supervisor gives up its privileges, since the launcher keeps what it is started with.
    pub fn spawn(path: &Path) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = Command::new(path)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { child, socket: ours })
    }
}
