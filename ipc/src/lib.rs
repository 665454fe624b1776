//! The wire protocols of Cloister.
//!
//! Two of them, both bincode behind one capped [`codec`]:
//!
//! * supervisor ↔ Worker (`ipc` contract): [`worker`] messages in [`frame`]s on a
//!   `SOCK_STREAM`, and [`control`] messages with descriptors on a `SOCK_SEQPACKET`.
//! * supervisor ↔ launcher: [`launch`] messages with descriptors on a `SOCK_SEQPACKET`.
//!
//! This crate knows no policy and opens nothing; it turns bytes into validated types and back.
//! Every limit is in [`limits`]. Descriptors only ever travel *towards* the Worker: the supervisor
//! makes both ends, so it never has to accept a descriptor from a hostile process.

#![forbid(unsafe_code)]

pub mod borrowed;
pub mod codec;
pub mod control;
pub mod descriptors;
pub mod frame;
pub mod head;
pub mod launch;
pub mod limits;
pub mod worker;

#[cfg(test)]
mod properties;

/// Version of the supervisor ↔ Worker protocol; a Worker that greets with another is refused.
pub const PROTOCOL: u16 = 2;

/// A program with these bytes in it has the SDK, so its contract is `ipc` unless told otherwise.
/// The SDK refers to this static in a way the linker can't drop.
pub static SDK_MARKER: [u8; 32] = *b"cloister:sdk:contract=ipc:1f8b6e";
