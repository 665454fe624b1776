//! `cloister.toml`: the file, validated into types.
//!
//! Every key is known or refused; every error names the file, the line, the column, the key and
//! what would be right. Relative paths are relative to the file.

mod error;
mod own_wall;
mod pattern;
mod raw;
mod route;
mod settings;

pub use error::ConfigError;
pub use own_wall::SupervisorWall;
pub use pattern::{HostPattern, NameTemplate, PathPattern, PatternError};
pub use route::{RateLimit, Route, RouteTarget, Routing};
pub use settings::{AdminTcp, Config, Listen, LogFormat, Pool, Runtime, Sandbox, Telemetry};

/// Where `cloister serve` looks when it is not told.
pub const DEFAULT_PATH: &str = "/etc/cloister/cloister.toml";

/// Longest configuration file that is read, bytes.
const FILE_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests;
