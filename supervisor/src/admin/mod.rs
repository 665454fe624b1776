//! The admin API: Cloudflare's v4 paths and shapes for Workers for Platforms, and our own additions.
//! docs/API.md describes it.

pub mod binary;
mod deploy;
mod error;
mod extract;
mod lent;
pub mod metadata;
mod namespaces;
mod own;
mod parts;
mod places;
mod platform;
mod router;
mod scripts;
mod secrets;
pub mod server;
mod token;
mod upload;
mod views;

pub use error::ApiError;
pub use parts::{Egress, Parts, Pool, ProbeFailure, Startup};
pub use platform::{OpenError, Platform, Settings};
pub use router::router;

#[cfg(test)]
mod tests;
