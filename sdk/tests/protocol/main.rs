//! Drives the SDK against a supervisor of its own, message by message.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test says by panicking that it failed

mod bodies;
mod connections;
mod entry;
mod fetches;
mod requests;
mod supervisor;
mod tunnels;
