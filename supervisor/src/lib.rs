//! The supervisor: front door, dispatch, pool, egress filter, control plane.

#![forbid(unsafe_code)]

pub mod body;
pub mod config;
pub mod egress;
pub mod launch;
pub mod limits;
pub mod outcome;
pub mod registry;
pub mod store;
pub mod worker;
