//! The launcher's program; all of it is the library, so that the chain of walls can be tested.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match cloister_sandbox_runner::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sandbox-runner: {failure}; {}", failure.fix());
            ExitCode::FAILURE
        }
    }
}
