//! The supervisor: front door, dispatch, pool, egress filter, control plane.

#![forbid(unsafe_code)]

pub mod admin;
pub mod body;
pub mod cli;
mod client;
pub mod config;
pub mod dispatch;
pub mod doctor;
pub mod egress;
mod fields;
pub mod front;
pub mod launch;
pub mod limits;
pub mod outcome;
mod peer;
pub mod pool;
pub mod registry;
pub mod runtime;
mod second;
pub mod serve;
mod slots;
pub mod store;
pub mod telemetry;
pub mod worker;
