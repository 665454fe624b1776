//! Wall: landlock. Everything the running kernel can handle is handled; little is allowed.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Component;

use cloister_ipc::launch::{Failure, LandlockEnforced, Spec, Stage, Start, Wall};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Raising, stage};
use crate::failure::failure;

pub(crate) use cloister_sys::landlock_abi as abi;

/// Folders of the loader and libraries, where the template has them.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64"];

/// Walls that came with an ABI later than the first.
const LATER: [(i32, Wall); 2] = [(4, Wall::LandlockTcp), (6, Wall::LandlockScopes)];

/// What landlock can restrict since which ABI, in words.
const RIGHTS: [(i32, &str); 5] = [
    (2, "moving files between folders"),
    (3, "truncating files"),
    (4, "TCP ports"),
    (5, "ioctl of devices"),
    (6, "signals and abstract sockets"),
];

/// Walls that a kernel of this ABI can't raise; 0 is no landlock at all.
pub(crate) fn lacks(abi: i32) -> Vec<Wall> {
    let first = (abi < 1).then_some(Wall::Landlock);
    let later = LATER.iter().filter(|(since, _)| abi < *since).map(|(_, wall)| *wall);
    first.into_iter().chain(later).collect()
}

/// Refuses a kernel that can't raise what was not waived. Without landlock there are neither ports
/// nor scopes, so that waiver says it all.
pub(crate) fn demand(abi: i32, waived: impl Fn(Wall) -> bool) -> Result<(), Failure> {
    if waived(Wall::Landlock) {
        return Ok(());
    }
    match lacks(abi).into_iter().find(|wall| !waived(*wall)) {
        None => Ok(()),
        Some(wall) => {
            let since = LATER.iter().find(|(_, of)| *of == wall).map_or(1, |(since, _)| *since);
            let what = format!("this kernel's landlock has ABI {abi}, {since} is needed");
            Err(failure(Stage::Wall(wall), &what, &io::Error::from_raw_os_error(nix::libc::ENOSYS)))
        }
    }
}

impl Raising<stage::Filtered> {
    /// Only the binary and its loader may be executed; files as the spec says; TCP ports as the
    /// start says. Any right that can't be had is an error.
    ///
    /// # Errors
    /// The running kernel can't do what is not waived, or does not do it.
    pub fn landlock(
        mut self,
        spec: &Spec,
        start: &Start,
        binary: BorrowedFd<'_>,
    ) -> Result<Raising<stage::Landlocked>, Failure> {
        if self.waived(Wall::Landlock) {
            return Ok(self.advance());
        }
        let kernel = cloister_sys::landlock_abi();
        demand(kernel, |wall| self.waived(wall))?;
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
            lacks: RIGHTS
                .iter()
                .filter(|(since, _)| kernel < *since)
                .map(|(since, what)| format!("{what} (ABI {since})"))
                .collect(),
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
        created = loader(created, interpreter, execute)?;
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

/// A rule on the loader, which must be a file below the library folders: of any other path a right to execute
/// would be one on more than a loader, through /proc even on something outside of the root.
fn loader(
    created: landlock::RulesetCreated,
    interpreter: &str,
    rights: BitFlags<AccessFs>,
) -> io::Result<landlock::RulesetCreated> {
    let at = std::path::Path::new(interpreter);
    let plain = at.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let below = LIBRARIES.iter().any(|folder| at.starts_with(folder));
    if !plain || !below || !std::fs::metadata(at).is_ok_and(|status| status.is_file()) {
        return Err(io::Error::other(format!("{interpreter} is no loader: not a file below {LIBRARIES:?}")));
    }
    path(created, interpreter, rights)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_lacks_must_be_waived_by_its_name() {
        let missing = |abi, waived: &[Wall]| {
            demand(abi, |wall| waived.contains(&wall)).err().map(|failure| failure.stage)
        };
        assert_eq!(missing(7, &[]), None);
        assert_eq!(missing(6, &[]), None);
        assert_eq!(missing(5, &[]), Some(Stage::Wall(Wall::LandlockScopes)));
        assert_eq!(missing(5, &[Wall::LandlockScopes]), None);
        assert_eq!(missing(5, &[Wall::LandlockTcp]), Some(Stage::Wall(Wall::LandlockScopes)));
        assert_eq!(missing(2, &[Wall::LandlockScopes]), Some(Stage::Wall(Wall::LandlockTcp)));
        assert_eq!(missing(2, &[Wall::LandlockScopes, Wall::LandlockTcp]), None);
        assert_eq!(missing(0, &[Wall::LandlockScopes, Wall::LandlockTcp]), Some(Stage::Wall(Wall::Landlock)));
        assert_eq!(missing(0, &[Wall::Landlock]), None);
        assert_eq!(lacks(2), [Wall::LandlockTcp, Wall::LandlockScopes]);
    }
}
