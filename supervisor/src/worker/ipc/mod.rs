//! The supervisor's side of the `ipc` contract.
//!
//! Each of the supervisor's runtimes has a [`Connection`] of its own to a Worker process. All that
//! comes from the Worker is hostile until it was checked: the checks are in [`receive`].

mod bodies;
mod connection;
mod control;
pub mod flush;
mod receive;
mod send;
mod state;
mod stream;

pub use connection::{Connection, End};
pub use control::{Control, is_gone, start_record};

/// Bytes waiting to be written above which new requests wait.
const HIGH_WATER: usize = 1 << 20;

/// Bytes waiting to be written at which they are written without waiting for the end of the batch.
const FLUSH_BYTES: usize = 32 * 1024;

/// Messages that may come about things that are over before it is a flood.
const STRAY_MESSAGES: u32 = 4096;

/// Answers of cancelled requests that are still expected.
const CANCELLED_KEPT: usize = 8192;

/// Longest a Worker may leave its full socket unread, in seconds.
const STALL_SECONDS: u64 = 30;

/// Longest `wait_until` work goes on, in seconds.
const WAIT_UNTIL_SECONDS: u64 = 30;

/// Longest text of an exception, in bytes.
const EXCEPTION_BYTES: usize = 4096;
