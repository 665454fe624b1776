//! The whole platform from outside: real programs, real walls, real requests. A file per theme.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail loudly")]

mod bad_input;
mod cli;
mod confined;
mod debian;
mod deploys;
mod dispatcher;
mod egress;
mod http_contract;
mod inspect;
mod ipc_contract;
mod limits;
mod restart;
mod unprivileged;
mod websocket;

use cloister_tests::{Config, Platform, Tenant, Upload, compile_c, tenant};

/// Every host `NAME.test` is the user Worker `production/NAME`.
fn config() -> Config {
    Config::default().route("host = \"*.test\"\nworker = \"{1}\"\nnamespace = \"production\"")
}

/// A platform with [`config`] and the empty namespace `production`.
async fn platform() -> Platform {
    platform_with(config()).await
}

async fn platform_with(config: Config) -> Platform {
    let platform = Platform::with(config).await;
    platform.namespace("production").await;
    platform
}

/// The C server of `tests/tenants/http`, as a user Worker.
fn server(name: &str) -> Upload {
    Upload::user("production", name, server_program()).http()
}

/// The SDK Worker of `tests/tenants/rust` that does anything.
fn worker(name: &str) -> Upload {
    Upload::user("production", name, tenant("anything"))
}

fn server_program() -> Tenant {
    compile_c("http/server.c")
}
