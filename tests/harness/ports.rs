//! Ports of 127.0.0.1 that no other test of this machine takes.

use std::fs::{File, TryLockError};
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
    /// Reserves a free port.
    #[must_use]
    pub fn reserve() -> Self {
        let folder = std::env::temp_dir().join("cloister-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder for port locks");
        // Different test programs begin at different places.
        let begin = std::process::id() % 10_000;
        for step in 0..10_000 {
            let number = u16::try_from(20_000 + (begin + step) % 10_000).expect("below 30,000");
            let lock = File::create(folder.join(number.to_string())).expect("a lock file for a port");
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => panic!("can't lock port {number}: {error}"),
            }
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port of 127.0.0.1 from 20000 to 29999");
    }
}
