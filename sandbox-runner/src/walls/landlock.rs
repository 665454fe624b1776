//! Wall: landlock. Everything the running kernel can handle is handled; little is allowed.

use std::io;
use std::os::fd::BorrowedFd;

use cloister_ipc::launch::{Failure, LandlockEnforced, Spec, Stage, Start, Wall};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Raising, stage};
use crate::failure::failure;

/// Folders of the loader and libraries, where the template has them.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64"];

impl Raising<stage::Filtered> {
    /// Only the binary and its loader may be executed; files as the spec says; TCP ports as the
    /// start says. Any right that can't be had is an error.
    pub(crate) fn landlock(
        mut self,
        spec: &Spec,
        start: &Start,
        binary: BorrowedFd<'_>,
    ) -> Result<Raising<stage::Landlocked>, Failure> {
        if self.waived(Wall::Landlock) {
            return Ok(self.advance());
        }
        let kernel = cloister_sys::landlock_abi();
        let abi = ABI::from(kernel);
        let status = restrict(abi, spec, start, binary)
            .map_err(|error| failure(Stage::Wall(Wall::Landlock), "restricting the process", &error))?;
        let full = status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs;
        if !full {
            let error = io::Error::other(format!("{status:?}"));
            return Err(failure(Stage::Wall(Wall::Landlock), "not all of it is enforced", &error));
        }
        self.enforced.landlock = Some(LandlockEnforced {
            abi: kernel,
            fs: AccessFs::from_all(abi).bits(),
            net: AccessNet::from_all(abi).bits(),
            scopes: Scope::from_all(abi).bits(),
            full,
        });
        Ok(self.advance())
    }
}

fn restrict(abi: ABI, spec: &Spec, start: &Start, binary: BorrowedFd<'_>) -> io::Result<RestrictionStatus> {
    if abi == ABI::Unsupported {
        return Err(io::Error::from_raw_os_error(nix::libc::ENOSYS));
    }
    let (fs, net, scopes) = (AccessFs::from_all(abi), AccessNet::from_all(abi), Scope::from_all(abi));
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    ruleset = ruleset.handle_access(fs).map_err(io::Error::other)?;
    if !net.is_empty() {
        ruleset = ruleset.handle_access(net).map_err(io::Error::other)?;
    }
    if !scopes.is_empty() {
        ruleset = ruleset.scope(scopes).map_err(io::Error::other)?;
    }
    let mut created = ruleset.create().map_err(io::Error::other)?;

    // The kernel asks for both rights to execute. The file's mode still forbids to read it.
    let execute = AccessFs::Execute | AccessFs::ReadFile;
    created = created.add_rule(PathBeneath::new(binary, execute)).map_err(io::Error::other)?;
    if let Some(interpreter) = &start.interpreter {
        created = path(created, interpreter, execute)?;
    }
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    // Nothing made in /tmp may run or be a device.
    let scratch = fs & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    created = path(created, "/tmp", scratch)?;
    created = path(created, "/etc", read)?;
    // The template has five harmless ones there, and is read-only.
    created = path(created, "/dev", AccessFs::ReadFile | AccessFs::WriteFile)?;
    if spec.app_bytes > 0 {
        created = path(created, "/app", read)?;
    }
    if spec.proc {
        created = path(created, "/proc", read)?;
    }
    if spec.libraries {
        for folder in LIBRARIES {
            if std::path::Path::new(folder).is_dir() {
                created = path(created, folder, read)?;
            }
        }
    }
    if !net.is_empty() {
        for port in &start.bind {
            created = created.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(io::Error::other)?;
        }
        for port in &start.connect {
            created =
                created.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(io::Error::other)?;
        }
    }
    created.restrict_self().map_err(io::Error::other)
}

fn path(
    created: landlock::RulesetCreated,
    path: &str,
    rights: impl Into<BitFlags<AccessFs>>,
) -> io::Result<landlock::RulesetCreated> {
    let opened = PathFd::new(path).map_err(|error| io::Error::other(format!("{path}: {error}")))?;
    created
        .add_rule(PathBeneath::new(opened, rights.into()))
        .map_err(|error| io::Error::other(format!("{path}: {error}")))
}
