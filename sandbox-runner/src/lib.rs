//! `sandbox-runner`: the launcher, the only privileged process of Cloister.
//!
//! One thread, no network, no parser but the capped bincode. It makes **blanks**: children behind
//! every wall that waits for no binary, each handed to the supervisor as a socket. Its standard
//! input is its socket to the supervisor; when that ends it kills all it made and exits.
//!
//! * `launcher`: the loop, the template roots, making a blank, telling the kernel's view of one.
//! * `cgroup`: limits, on v2 and on v1 or hybrid hosts.
//! * `blank`: what a child does from clone to exec.
//! * [`walls`]: the walls, each a step of a chain that only has exec at its end.

#![forbid(unsafe_code)]

mod blank;
mod cgroup;
mod failure;
mod launcher;
pub mod walls;

pub use launcher::run;
