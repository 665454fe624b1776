//! Policies: raw file → validated policy → verdict, and the shipped policy files.

#![forbid(unsafe_code)]

pub mod sandbox;
pub mod seccomp;
