//! Starting Workers: the supervisor's side of the launcher.
//!
//! [`Runner::spawn`] starts the launcher while the supervisor is still privileged; [`Launcher`] is
//! the handle everything else uses, from any thread and any runtime. It keeps blanks ready for the
//! specs in use, so that a start is a message to a process that already waits behind its walls.

mod client;
mod error;
mod filters;
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
pub use net::Net;
pub use process::{Exit, Process};
pub use runner::Runner;
pub use walls::Walls;

pub use cloister_ipc::launch::{CgroupMode, Configure, ExitStatus, Failure, Machine, Wall};
