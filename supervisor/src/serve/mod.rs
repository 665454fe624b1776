//! `cloister serve`: from a configuration file to a running platform.
//!
//! The order matters: what needs privilege comes first (state folder, launcher, sockets), then the
//! supervisor becomes an ordinary account without capabilities, then it confines itself, and only then
//! does it start threads and read a byte from the network.

mod adapters;
mod boot;
pub mod confine;
mod error;
mod logging;
mod notify;
mod privilege;
mod run;

use std::path::Path;

pub(crate) use boot::{runner_path, sandbox_policy};
pub use error::{ServeError, exit};

use crate::config::Config;

/// Runs a platform until it is told to end.
///
/// # Errors
/// Names the step that failed, why, and what to do.
pub fn serve(path: &Path) -> Result<(), ServeError> {
    let config = Config::load(path)?;
    logging::start(&config.telemetry)?;
    let booted = boot::boot(config)?;
    run::run(booted)
}
