//! The admin API: Cloudflare's v4 paths and shapes for Workers for Platforms, and our own additions.
//! docs/API.md describes it.

pub mod binary;
mod deploy;
mod error;
mod extract;
pub mod metadata;
mod namespaces;
mod own;
mod platform;
mod pool;
mod router;
mod scripts;
mod secrets;
mod upload;
mod views;

pub use error::ApiError;
pub use platform::{OpenError, Platform, Settings};
pub use pool::{Pool, ProbeFailure, Startup};
pub use router::router;

#[cfg(test)]
mod tests;
