//! `sandbox-runner`: the launcher and what raises the walls.

fn main() {}
