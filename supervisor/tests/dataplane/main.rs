//! The data plane against Workers in threads of the test: the SDK's and hostile ones.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod bodies;
mod chains;
mod double;
mod failures;
mod front;
mod hostile;
mod pool;
mod server;
