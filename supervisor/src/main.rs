//! `cloister`.

#![forbid(unsafe_code)]

/// A request is some forty small allocations, most of them freed by the end of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cloister_supervisor::cli::main()
}
