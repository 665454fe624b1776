//! What the launcher is linked with: a privileged program is as small as its dependencies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail loudly")]

use std::collections::BTreeSet;
use std::process::Command;

/// Every crate that is code in the launcher. A new one here is a decision: it runs as root.
const LINKED: &[&str] = &[
    "bincode",
    "bitflags",
    "bytes",
    "cfg-if",
    "cloister-ipc",
    "cloister-sandbox-runner",
    "cloister-sys",
    "enumflags2",
    "http",
    "itoa",
    "landlock",
    "libc",
    "linux-raw-sys",
    "memoffset",
    "nix",
    "rustix",
    "serde",
    "serde_bytes",
    "serde_core",
    "thiserror",
    "unty",
];

/// Names that may never be among them: runtimes, networks, parsers of configuration languages.
const NEVER: &[&str] = &[
    "tokio",
    "mio",
    "hyper",
    "async-std",
    "smol",
    "toml",
    "serde_json",
    "serde_yaml",
    "rustls",
    "regex",
    "tracing",
];

#[test]
fn the_launcher_is_linked_with_these_crates_and_no_other() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "cloister-sandbox-runner"])
        // Without build scripts; procedural macros run at build time only, too.
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let linked: BTreeSet<_> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let known: BTreeSet<_> = LINKED.iter().copied().collect();
    let new: Vec<_> = linked.difference(&known).collect();
    let gone: Vec<_> = known.difference(&linked).collect();
    assert!(new.is_empty() && gone.is_empty(), "new in the launcher: {new:?}; not there any more: {gone:?}");
    assert!(NEVER.iter().all(|name| !linked.contains(name)));
}
