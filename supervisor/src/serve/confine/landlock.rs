//! Which files, sockets and processes the supervisor can reach by name.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};
use serde::Serialize;

use super::Paths;

/// First ABI that lets files be moved between folders (Linux 5.19), as the store does with every upload.
const MOVES: i32 = 2;
/// First ABI with rules for TCP ports.
const PORTS: i32 = 4;
/// First ABI with scopes.
const SCOPES: i32 = 6;

/// What the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Landlocked {
    /// ABI of the running kernel.
    pub abi: i32,
    /// Rights on files that are handled.
    pub fs: u64,
    /// Rights on TCP ports that are handled.
    pub net: u64,
    /// Scopes.
    pub scopes: u64,
}

impl Landlocked {
    /// What an older kernel leaves out, for people; empty when it is all there.
    #[must_use]
    pub fn lacks(&self) -> Vec<&'static str> {
        let lacking =
            [(PORTS, "binding of TCP ports (ABI 4)"), (SCOPES, "signals and abstract sockets (ABI 6)")];
        lacking.into_iter().filter(|(abi, _)| self.abi < *abi).map(|(_, what)| what).collect()
    }
}

/// Restricts the calling thread. Nothing may be executed, no TCP port bound (all listening sockets
/// are bound by now), no process signalled, no abstract socket reached; connecting by TCP is what
/// the egress filter is for and stays free.
pub(super) fn restrict(paths: &Paths) -> io::Result<Landlocked> {
    let kernel = cloister_sys::landlock_abi();
    let abi = ABI::from(kernel);
    demand(kernel)?;
    let fs = AccessFs::from_all(abi);
    let net = AccessNet::from_all(abi) & AccessNet::BindTcp;
    let scopes = Scope::from_all(abi);
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(fs).map_err(io::Error::other)?;
    if !net.is_empty() {
        ruleset = ruleset.handle_access(net).map_err(io::Error::other)?;
    }
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes).map_err(io::Error::other)?;
    }
    let mut rules = Rules { created: ruleset.create().map_err(io::Error::other)?, handled: fs };
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let own = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    for folder in &paths.writable {
        rules.allow(folder, own)?;
    }
    for folder in &paths.readable {
        rules.allow(folder, read)?;
    }
    for folder in &paths.removable {
        rules.allow(folder, AccessFs::RemoveFile)?;
    }
    for file in &paths.files {
        rules.allow(file, AccessFs::ReadFile)?;
    }
    // A Worker's use of memory. No right to list them.
    rules.allow("/proc", AccessFs::ReadFile)?;
    rules.allow("/sys/fs/cgroup", AccessFs::ReadFile)?;
    rules.allow("/dev/null", AccessFs::ReadFile | AccessFs::WriteFile)?;
    rules.allow("/dev/urandom", AccessFs::ReadFile)?;
    let status = rules.created.restrict_self().map_err(io::Error::other)?;
    if status.ruleset != RulesetStatus::FullyEnforced || !status.no_new_privs {
        return Err(io::Error::other(format!("not all of it is enforced: {status:?}")));
    }
    Ok(Landlocked { abi: kernel, fs: fs.bits(), net: net.bits(), scopes: scopes.bits() })
}

/// Refuses a kernel behind whose landlock the store could not work.
fn demand(abi: i32) -> io::Result<()> {
    match abi {
        ..1 => Err(io::Error::other("the kernel has no landlock")),
        1..MOVES => Err(io::Error::other(format!(
            "the kernel's landlock has ABI {abi}, which forbids to move files between folders; {MOVES} is needed"
        ))),
        MOVES.. => Ok(()),
    }
}

struct Rules {
    created: RulesetCreated,
    handled: BitFlags<AccessFs>,
}

impl Rules {
    /// Allows what this kernel's landlock knows of `rights`; nothing where there is nothing.
    fn allow(&mut self, path: impl AsRef<Path>, rights: impl Into<BitFlags<AccessFs>>) -> io::Result<()> {
        let path = path.as_ref();
        let named = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", path.display()));
        if !path.try_exists().map_err(|error| named(&error))? {
            return Ok(());
        }
        let opened = PathFd::new(path).map_err(|error| named(&error))?;
        let rule = PathBeneath::new(opened, rights.into() & self.handled);
        (&mut self.created).add_rule(rule).map_err(|error| named(&error))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::demand;

    #[test]
    fn a_kernel_that_forbids_moves_is_refused() {
        assert!(demand(0).unwrap_err().to_string().contains("no landlock"));
        assert!(demand(1).unwrap_err().to_string().contains("ABI 1"));
        assert!(demand(2).is_ok() && demand(7).is_ok());
    }
}
