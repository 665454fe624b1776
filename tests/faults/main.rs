//! Things that break: processes that die, disks that fill, files that rot, peers that stall.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail loudly")]

mod death;
mod disk;
mod stall;

use cloister_tests::{Config, Platform, Upload, compile_c};

fn config() -> Config {
    Config::default().route("host = \"*.test\"\nworker = \"{1}\"\nnamespace = \"production\"")
}

async fn platform() -> Platform {
    let platform = Platform::with(config()).await;
    platform.namespace("production").await;
    platform
}

fn server(name: &str) -> Upload {
    Upload::user("production", name, compile_c("http/server.c")).http()
}
