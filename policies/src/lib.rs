//! Policies: raw file → validated policy → verdict, and the shipped policy files.

#![forbid(unsafe_code)]

pub mod address;
pub mod egress;
pub mod sandbox;
pub mod seccomp;
