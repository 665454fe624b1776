//! Starting Workers: the supervisor's side of the launcher.
//!
//! [`Runner::spawn`] starts the launcher while the supervisor is still privileged; [`Launcher`] is
//! the handle everything else uses, from any thread and any runtime. It keeps blanks ready for the
//! specs in use, so that a start is a message to a process that already waits behind its walls.
//!
//! # What a stored binary must be
//! A file of **mode 0111 or 0511**, owned by any uid that is not a Worker's (the supervisor's is
//! right), in folders that the supervisor may search. The supervisor opens it with `O_PATH`, which
//! asks for no right to read, and passes the descriptor; the Worker's uid is "other" and may execute,
//! not read. The kernel keeps a process that runs a file it may not read from being dumpable, across
//! exec, where every other way to get there is lost: nobody but root can trace it or open its `/proc`
//! entries. A blank refuses a binary that it may read. No Worker can name another's binary: none is
//! in its root, and its own descriptor closes on exec. The file must not be on a mount with
//! `noexec`, and nobody may have it open for writing (`ETXTBSY`).
//!
//! An archive of files needs to be readable by the supervisor only.

mod client;
mod error;
mod filters;
mod kernel;
mod net;
mod plan;
mod process;
pub(crate) mod reactor;
mod ready;
mod runner;
mod start;
mod walls;

pub use client::{Launcher, Options};
pub use error::StartError;
pub use kernel::{Inspection, Kernel};
pub use net::Net;
pub use process::{Exit, Process};
pub use runner::Runner;
pub use walls::Walls;

pub use cloister_ipc::launch::{CgroupMode, Configure, ExitStatus, Failure, Machine, Wall};
