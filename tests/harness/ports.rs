//! Ports of 127.0.0.1 that no other test of this machine takes.

use std::fs::File;
use std::net::TcpListener;

/// A reserved port; free again when dropped. Below the range from which the kernel picks ports for
/// outgoing connections, and locked by a file, as several test programs run at a time.
#[derive(Debug)]
pub struct Port {
    /// The number.
    pub number: u16,
    _lock: File,
}

impl Port {
    /// Takes this port, if it is free.
    pub fn take(number: u16) -> std::io::Result<Self> {
        let lock = Self::lock_file(number);
        lock.try_lock()?;
        TcpListener::bind(("127.0.0.1", number))?;
        Ok(Self { number, _lock: lock })
    }

    fn lock_file(number: u16) -> File {
        let folder = std::env::temp_dir().join("cloister-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder for port locks");
        File::create(folder.join(number.to_string())).expect("a lock file for a port")
    }

    /// Reserves a free port.
    #[must_use]
    pub fn reserve() -> Self {
        // Different test programs begin at different places.
        let begin = std::process::id() % 10_000;
        for step in 0..10_000 {
            let number = u16::try_from(20_000 + (begin + step) % 10_000).expect("below 30,000");
            if let Ok(port) = Self::take(number) {
                return port;
            }
        }
        panic!("no free port of 127.0.0.1 from 20000 to 29999");
    }
}
