//! A Worker that says anything, against the supervisor's side of the `ipc` contract.
#![no_main]

#[path = "../converse.rs"]
mod converse;
#[path = "../script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    converse::converse(bytes);
});
