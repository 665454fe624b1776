//! The supervisor's own walls: after its start it may open little by name and call little of the
//! kernel.
//!
//! Both are the calling thread's and its children's, so they are raised while there is one thread,
//! before the first byte from the network. What was opened before (listening sockets, the launcher's
//! socket, the log) stays usable. An attacker who takes the supervisor over still has all it holds:
//! secrets, policies, Workers' traffic; he does not get a program to execute, another file of the
//! host, or most of the kernel.

mod landlock;
mod paths;

use std::collections::BTreeSet;
use std::io;

use cloister_policies::seccomp;
use serde::Serialize;

use crate::config::SupervisorWall;
pub use landlock::Landlocked;
pub use paths::Paths;

/// What was really raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confined {
    /// Landlock; `None` when waived.
    pub landlock: Option<Landlocked>,
    /// Instructions of the system call filter; `None` when waived.
    pub seccomp: Option<usize>,
}

/// Why the supervisor can't be confined.
#[derive(Debug, thiserror::Error)]
#[error("wall {wall}: {why}")]
pub struct ConfineError {
    /// Which wall.
    pub wall: SupervisorWall,
    /// Why.
    pub why: String,
}

impl ConfineError {
    fn new(wall: SupervisorWall, why: impl std::fmt::Display) -> Self {
        Self { wall, why: why.to_string() }
    }

    /// What an operator can do about it.
    #[must_use]
    pub fn fix(&self) -> String {
        let kernel = match self.wall {
            SupervisorWall::Landlock => "boot a kernel with landlock (5.19 or newer, lsm=landlock,...)",
            SupervisorWall::Seccomp => "boot a kernel with CONFIG_SECCOMP_FILTER",
        };
        format!("{kernel}, or waive `{}` by sandbox.waive", self.wall)
    }
}

/// Confines the process. To be called while it has one thread; sets no_new_privs.
///
/// # Errors
/// A wall that is not waived can't be raised, or there are other threads, which would not be behind
/// it. Nothing may be served then.
pub fn confine(paths: &Paths, waived: &BTreeSet<SupervisorWall>) -> Result<Confined, ConfineError> {
    if waived.len() < SupervisorWall::ALL.len() {
        let threads = threads().map_err(|error| ConfineError::new(SupervisorWall::Seccomp, error))?;
        if threads != 1 {
            let why = format!("{threads} threads run already, and the wall would be around one of them only");
            return Err(ConfineError::new(SupervisorWall::Seccomp, why));
        }
    }
    raise(paths, waived)
}

/// Confines the calling thread, and what it starts, for good.
///
/// # Errors
/// As [`confine`].
pub fn raise(paths: &Paths, waived: &BTreeSet<SupervisorWall>) -> Result<Confined, ConfineError> {
    let wall = SupervisorWall::Landlock;
    cloister_sys::set_no_new_privs().map_err(|error| ConfineError::new(wall, error))?;
    let landlock = match waived.contains(&wall) {
        true => None,
        false => Some(landlock::restrict(paths).map_err(|error| ConfineError::new(wall, error))?),
    };
    let wall = SupervisorWall::Seccomp;
    let seccomp = match waived.contains(&wall) {
        true => None,
        false => Some(filter().map_err(|error| ConfineError::new(wall, error))?),
    };
    Ok(Confined { landlock, seccomp })
}

/// Installs the filter; its number of instructions.
fn filter() -> io::Result<usize> {
    let program = seccomp::supervisor().map_err(io::Error::other)?;
    cloister_sys::install_filter(&program)?;
    Ok(program.len() / 8)
}

/// Threads of this process. One that was joined may be listed a moment longer.
fn threads() -> io::Result<usize> {
    for _ in 0..100 {
        if std::fs::read_dir("/proc/self/task")?.count() == 1 {
            return Ok(1);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}
