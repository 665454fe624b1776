//! System call filters: commented allow-lists in `policies/seccomp/`, compiled to BPF.
//!
//! Two programs a Worker. `base` is installed in a waiting blank and is the whole policy, but for
//! what the blank itself still needs (`launch.toml`). `last` is installed right before exec, puts
//! those few calls back to what the policy says, and refuses once more the arguments that no policy
//! may allow (`deny/`). Of several filters the kernel obeys the strictest, and none can ever be
//! removed.

mod arch;
mod assemble;
mod bpf;
mod data;
mod policy;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod deny_tests;
#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod supervisor_tests;
#[cfg(test)]
mod tests;

use sha2::{Digest as _, Sha256};

pub use arch::Arch;
pub use policy::{Action, Decision, Test, TestKind};

/// How a Worker answers, as far as its system calls differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contract {
    /// A server in a network namespace of its own.
    Http,
    /// Linked with the SDK, only given descriptors.
    Ipc,
}

/// What a filter is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Profile {
    /// How the Worker answers.
    pub contract: Contract,
    /// It may fork.
    pub processes: bool,
    /// It may map memory writable and executable.
    pub jit: bool,
}

/// Two compiled programs: arrays of the kernel's `struct sock_filter` in native byte order, 8
/// bytes an instruction, at most [`MAX_INSTRUCTIONS`] each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// To install in the blank.
    pub base: Vec<u8>,
    /// To install right before exec.
    pub last: Vec<u8>,
}

/// The kernel's limit on a program's length, in instructions (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

impl Programs {
    /// SHA-256 over `base` and then `last`, 64 hexadecimal digits: what was enforced, for
    /// attestation. The split is part of it (the length of `base` is hashed first).
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update((self.base.len() as u64).to_le_bytes());
        hash.update(&self.base);
        hash.update(&self.last);
        hex::encode(hash.finalize())
    }

    /// Instructions of `base` and of `last`.
    #[must_use]
    pub fn instructions(&self) -> (usize, usize) {
        (self.base.len() / bpf::INSTRUCTION_BYTES, self.last.len() / bpf::INSTRUCTION_BYTES)
    }
}

/// Why the policy files don't make a filter. They are part of the program: only a change to them
/// can bring this about, and the unit tests catch it.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Not the TOML that is expected.
    #[error("seccomp/{file}: {error}")]
    Parse {
        /// Which file.
        file: &'static str,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// A name that has no number.
    #[error("seccomp/{file}: {name} is not {what} (see numbers.toml and constants.toml)")]
    Unknown {
        /// Which file.
        file: &'static str,
        /// The name.
        name: String,
        /// What it should be.
        what: &'static str,
    },
    /// A condition that can't be checked, or is empty.
    #[error("seccomp/{file}: {syscall}: {reason}")]
    Condition {
        /// Which file.
        file: &'static str,
        /// Whose condition.
        syscall: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The same call in two files, or a waiver for a call that nothing names.
    #[error("seccomp/{file}: {syscall} {reason}")]
    Composition {
        /// Which file.
        file: &'static str,
        /// Which call.
        syscall: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A program longer than the kernel takes, or with a jump that can't be encoded.
    #[error("the filter is too long: {0}")]
    TooLong(&'static str),
    /// There is no policy for the machine.
    #[error("there is no seccomp policy for {0}; x86_64 and aarch64 are known")]
    Arch(&'static str),
}

/// Compiles the filters of `profile` for the machine this runs on.
pub fn compile(profile: &Profile) -> Result<Programs, SeccompError> {
    let arch = Arch::native().ok_or(SeccompError::Arch(std::env::consts::ARCH))?;
    compile_for(arch, profile)
}

/// Compiles the filters of `profile` for `arch`.
pub fn compile_for(arch: Arch, profile: &Profile) -> Result<Programs, SeccompError> {
    programs(arch, &policy::Policy::compose(arch, profile)?)
}

fn programs(arch: Arch, policy: &policy::Policy) -> Result<Programs, SeccompError> {
    let base = assemble::program(arch, &policy.base, Action::ENOSYS)?;
    let last = assemble::program(arch, &policy.last, Action::Allow)?;
    Ok(Programs { base: bpf::to_bytes(&base), last: bpf::to_bytes(&last) })
}

/// Compiles the supervisor's own filter for the machine this runs on, in the form of [`Programs`]'
/// programs.
pub fn supervisor() -> Result<Vec<u8>, SeccompError> {
    supervisor_for(Arch::native().ok_or(SeccompError::Arch(std::env::consts::ARCH))?)
}

/// Compiles the supervisor's own filter for `arch`.
pub fn supervisor_for(arch: Arch) -> Result<Vec<u8>, SeccompError> {
    let table = policy::supervisor(arch)?;
    Ok(bpf::to_bytes(&assemble::program(arch, &table, Action::EPERM)?))
}

/// What is decided for a Worker of `profile` on the machine this runs on: every call that a file
/// names, by number, in order. What is not in it fails with ENOSYS.
///
/// # Errors
/// As [`compile`].
pub fn decisions(profile: &Profile) -> Result<Vec<(u32, Decision)>, SeccompError> {
    decisions_for(Arch::native().ok_or(SeccompError::Arch(std::env::consts::ARCH))?, profile)
}

/// The same for `arch`.
fn decisions_for(arch: Arch, profile: &Profile) -> Result<Vec<(u32, Decision)>, SeccompError> {
    Ok(policy::Policy::compose(arch, profile)?.worker.into_iter().collect())
}

/// Name of a system call of the machine this runs on.
#[must_use]
pub fn syscall_name(number: u32) -> Option<&'static str> {
    arch::name(Arch::native()?, number)
}
