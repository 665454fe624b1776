//! The command line, a module for each subcommand.

pub mod policy;
