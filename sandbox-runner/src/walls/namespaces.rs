//! Wall: namespaces, and the uid inside.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cloister_ipc::launch::{Failure, NAMESPACES, Stage, Wall};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid};
use rustix::fs::{Mode, OFlags, openat, readlinkat};

use super::{Raising, stage};
use crate::failure::{failure, wall};

/// uid and gid of a Worker as it sees itself. Not 0: many programs do more when they think they are
/// root, and what they try then fails.
pub const INSIDE_ID: u32 = 1000;

/// How many user namespaces a user namespace may hold: of its own, below `/proc/sys/user`. The other
/// kinds need a capability, which only a further user namespace would give.
const NESTED: &str = "max_user_namespaces";

/// What a child needs of the host's `/proc` until it is in its namespaces.
#[derive(Debug)]
pub struct Outside {
    /// Its own `/proc/self/ns`.
    own: OwnedFd,
    /// `/proc/sys/user`, whose values are those of the user namespace of who opens them; or why not.
    limits: io::Result<OwnedFd>,
    /// The launcher's namespaces, in the order of [`NAMESPACES`].
    launcher: Vec<u64>,
}

impl Outside {
    /// Opens what is needed below `proc`; `launcher` are the launcher's namespaces.
    ///
    /// # Errors
    /// The kernel's, when there is no `/proc/self/ns`.
    pub fn open(proc: BorrowedFd<'_>, launcher: Vec<u64>) -> io::Result<Self> {
        let folder = |name: &str| -> io::Result<OwnedFd> {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(openat(proc, name, flags, Mode::empty())?)
        };
        Ok(Self { own: folder("self/ns")?, limits: folder("sys/user"), launcher })
    }

    /// The descriptors it holds.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.own.as_fd()).chain(self.limits.iter().map(AsFd::as_fd))
    }

    /// No user namespace can be made in this one any more, whoever gets past seccomp.
    fn forbid_nested(&self) -> io::Result<()> {
        let folder = match &self.limits {
            Ok(folder) => folder,
            Err(error) => {
                return Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)));
            }
        };
        let file = openat(folder, NESTED, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        std::fs::File::from(file).write_all(b"0")
    }
}

/// Inode numbers of the namespaces in `folder`, a `/proc/PID/ns`, in the order of [`NAMESPACES`].
pub(crate) fn ids(folder: impl AsFd) -> io::Result<Vec<u64>> {
    let mut ids = Vec::with_capacity(NAMESPACES.len());
    for name in NAMESPACES {
        // `net:[4026531840]`; cheaper than to look at what it leads to.
        let link = readlinkat(&folder, name, Vec::with_capacity(64))?;
        let id = link.to_str().ok().and_then(|text| text.split_once('[')?.1.strip_suffix(']')?.parse().ok());
        ids.push(id.ok_or_else(|| io::Error::other(format!("the {name} namespace is called {link:?}")))?);
    }
    Ok(ids)
}

impl Raising<stage::Limited> {
    /// A cgroup namespace whose root is its own folder, a host name that tells nothing, the uid that
    /// the launcher mapped, and no namespace further in. Checks that none is the launcher's.
    ///
    /// # Errors
    /// The step that failed, or the namespace that is the launcher's.
    pub fn enter_namespaces(mut self, outside: Outside) -> Result<Raising<stage::Named>, Failure> {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(wall(Wall::Namespaces, "unshare(CLONE_NEWCGROUP)"))?;
        sethostname("worker").map_err(wall(Wall::Namespaces, "sethostname"))?;
        let own = ids(&outside.own).map_err(wall(Wall::Namespaces, "looking at its own namespaces"))?;
        demand_own(&own, &outside.launcher)?;
        // A container's /proc/sys is often read-only.
        let absent = [libc::ENOENT, libc::EROFS, libc::EACCES, libc::EPERM];
        self.switch(Wall::Namespaces, "no-nested-user-namespaces", &absent, || outside.forbid_nested())?;
        drop(outside);
        let (uid, gid) = (Uid::from_raw(INSIDE_ID), Gid::from_raw(INSIDE_ID));
        match setgroups(&[]) {
            // The kernel forbids it in a user namespace that was made without privilege.
            Err(nix::errno::Errno::EPERM) if self.waived(Wall::OwnUid) => {}
            done => done.map_err(wall(Wall::OwnUid, "setgroups"))?,
        }
        setresgid(gid, gid, gid).map_err(wall(Wall::OwnUid, "setresgid"))?;
        setresuid(uid, uid, uid).map_err(wall(Wall::OwnUid, "setresuid"))?;
        // Lost by the change of ids.
        cloister_sys::set_parent_death_kill().map_err(wall(Wall::Namespaces, "prctl(PR_SET_PDEATHSIG)"))?;
        self.enforced.namespaces = NAMESPACES.iter().map(|name| (*name).to_owned()).zip(own).collect();
        Ok(self.advance())
    }
}

/// Refuses a child one of whose namespaces is the launcher's, or can't be compared with it.
fn demand_own(own: &[u64], launcher: &[u64]) -> Result<(), Failure> {
    let refused = |what: &str, errno| {
        let error = io::Error::from_raw_os_error(errno);
        Err(failure(Stage::Wall(Wall::Namespaces), what, &error))
    };
    for (whose, ids) in [("its own", own), ("the launcher's", launcher)] {
        if ids.len() != NAMESPACES.len() {
            let what = format!("{whose} namespaces are {} instead of {}", ids.len(), NAMESPACES.len());
            return refused(&what, libc::EINVAL);
        }
    }
    for (name, (id, launcher)) in NAMESPACES.iter().zip(own.iter().zip(launcher)) {
        if id == launcher {
            return refused(&format!("its {name} namespace is the launcher's, {id}"), libc::EEXIST);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_namespace_is_compared_with_the_launchers() {
        let count = NAMESPACES.len() as u64;
        let (own, launcher): (Vec<_>, Vec<_>) = ((100..100 + count).collect(), (1..=count).collect());
        assert_eq!(demand_own(&own, &launcher), Ok(()));
        for at in 0..NAMESPACES.len() {
            let mut shared = own.clone();
            shared[at] = launcher[at];
            let refused = demand_own(&shared, &launcher).unwrap_err();
            assert!(refused.what.contains(NAMESPACES[at]), "{refused:?}");
        }
        for (own, launcher) in [(&own[..], &[][..]), (&[], &launcher), (&own, &launcher[1..]), (&[], &[])] {
            let refused = demand_own(own, launcher).unwrap_err();
            assert_eq!(refused.stage, Stage::Wall(Wall::Namespaces), "{own:?} {launcher:?}");
        }
    }
}
