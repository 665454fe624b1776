//! Hostile tenants against the walls: a file per threat, each with a harmless twin that must still
//! work. Everything runs through the real launcher; nothing is mocked.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails loudly")]

mod arguments;
mod cell;
mod doors;
mod files;
mod host;
mod ipc;
mod launcher;
mod leaks;
mod leftovers;
mod missing_wall;
mod moby;
mod network;
mod peers;
mod processes;
mod resources;
mod syscalls;
mod takeover;
mod target;
