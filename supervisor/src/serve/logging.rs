//! The log: lines on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::error::{ServeError, exit};
use crate::config::{LogFormat, Telemetry};

/// Starts the log; `CLOISTER_LOG` overrides the configured filter.
pub(super) fn start(config: &Telemetry) -> Result<(), ServeError> {
    let wanted = std::env::var("CLOISTER_LOG").unwrap_or_else(|_| config.log.clone());
    let filter = EnvFilter::builder().parse(&wanted).map_err(|error| {
        ServeError::step(exit::CONFIG, "log filter", error)
            .fix("set CLOISTER_LOG or telemetry.log to a level")
    })?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Text => lines.with_ansi(colours).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| ServeError::step(exit::FAILED, "log", error))
}
