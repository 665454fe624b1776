//! The operator's sandbox policy: what a Worker gets, what it may ask for, and who may have a wall
//! lowered. Default deny: a Worker never has fewer walls by its own word.

mod error;
mod policy;
mod raw;
mod size;

#[cfg(test)]
mod tests;

pub use error::{Refused, SandboxPolicyError};
pub use policy::{Asked, Resources, SandboxPolicy, Waiver, Who};
