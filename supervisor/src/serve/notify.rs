//! Telling the service manager how we are (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;

use sd_notify::NotifyState;

/// The connection to the service manager, if there is one. Made before the supervisor confines
/// itself: afterwards no socket can be reached by its name.
#[derive(Debug, Clone, Default)]
pub(super) struct Manager(Option<Arc<UnixDatagram>>);

impl Manager {
    /// Connects to `NOTIFY_SOCKET`.
    pub(super) fn from_environment() -> io::Result<Self> {
        std::env::var_os("NOTIFY_SOCKET").map_or_else(|| Ok(Self::default()), |name| Self::at(&name))
    }

    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        Ok(Self(Some(Arc::new(socket))))
    }

    /// Tells it; a failure is logged.
    pub(super) fn tell(&self, state: &NotifyState<'_>) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = socket.send(format!("{state}\n").as_bytes()) {
            tracing::warn!(%error, "the service manager can't be told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_by_path_and_by_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("cloister-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (listener, at) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            Manager::at(&at).unwrap().tell(&NotifyState::Ready);
            let mut heard = [0; 64];
            let length = listener.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\n");
        }
        assert!(Manager::at(OsStr::new("/nonexistent/notify")).is_err());
    }
}
