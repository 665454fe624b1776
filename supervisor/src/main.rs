//! `cloister`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cloister_supervisor::cli::main()
}
