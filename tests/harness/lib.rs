//! What the tests share: the programs, a running platform, clients, and origins to fetch from.
//!
//! Everything here fails loudly: a test that can't run is a failed test. A [`Platform`] starts a real
//! supervisor with real walls in a folder of its own, and when it goes checks that nothing is left.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]

mod answer;
mod cli;
mod client;
mod config;
mod leftovers;
mod origin;
mod platform;
mod ports;
mod programs;
mod ran;
mod unprivileged;
mod upload;

pub use answer::Answer;
pub use cli::Said;
pub use client::Client;
pub use config::Config;
pub use origin::{Origin, Seen};
pub use platform::Platform;
pub use ports::Port;
pub use programs::{Tenant, compile_c, compile_c_dynamic, program, tenant};
pub use ran::Ran;
pub use upload::Upload;
