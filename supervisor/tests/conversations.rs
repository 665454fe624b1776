//! A bounded, repeatable run of the fuzz target `worker`: thousands of conversations by chance.
//! `CLOISTER_TEST_CONVERSATIONS` is how many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says by panicking that it failed"
)]

#[path = "../fuzz/converse.rs"]
mod converse;
#[path = "../fuzz/script.rs"]
mod script;

use std::collections::BTreeSet;

use converse::converse;

/// Bytes that look random and are the same for the same seed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    let length = next() % 600;
    (0..length).map(|_| u8::try_from(next() & 0xff).unwrap()).collect()
}

/// Resident memory in KiB, and descriptors.
fn weight() -> (u64, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.split_whitespace().next().unwrap().parse().unwrap();
    (memory, std::fs::read_dir("/proc/self/fd").unwrap().count())
}

#[test]
fn whatever_is_said_comes_to_an_end() {
    let count = std::env::var("CLOISTER_TEST_CONVERSATIONS").map_or(4000, |count| count.parse().unwrap());
    let (mut answered, mut failed, mut given, mut ended) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut reasons = BTreeSet::new();
    let mut before = (0, 0);
    for seed in 1..=count {
        if seed == count / 4 {
            before = weight();
        }
        let told = std::panic::catch_unwind(|| converse(&noise(seed)));
        let told = told.unwrap_or_else(|_| panic!("seed {seed}"));
        answered += told.answered as u64;
        failed += told.failed as u64;
        given += told.given as u64;
        if let Some(text) = told.violation {
            ended += 1;
            // Numbers apart, the reasons are few.
            reasons.insert(text.chars().filter(|c| !c.is_ascii_digit()).take(24).collect::<String>());
        }
    }
    let after = weight();
    println!(
        "{answered} answered, {failed} failed, {given} with descriptors, {ended} of {count} Workers ended for: {reasons:#?}"
    );
    println!("KiB and descriptors: {before:?}, then {after:?}");
    // It went deep: answers came, and Workers were ended for many different things.
    assert!(answered > count / 8, "{answered} answered");
    assert!(reasons.len() > 20, "{reasons:#?}");
    assert!(given > count / 40, "{given} messages came with descriptors");
    assert!(after.0 < before.0 + (32 << 10), "memory grew from {} to {} KiB", before.0, after.0);
    assert!(after.1 <= before.1 + 8, "descriptors grew from {} to {}", before.1, after.1);
}
