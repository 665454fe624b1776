//! Wall: namespaces, and the uid inside.

use cloister_ipc::launch::{Failure, Wall};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid};

use super::{Raising, stage};
use crate::failure::wall;

/// uid and gid of a Worker as it sees itself. Not 0: many programs do more when they think they are
/// root, and what they try then fails.
pub(crate) const INSIDE_ID: u32 = 1000;

impl Raising<stage::Limited> {
    /// A cgroup namespace whose root is its own folder, a host name that tells nothing, and the uid
    /// that the launcher mapped.
    pub(crate) fn enter_namespaces(mut self) -> Result<Raising<stage::Named>, Failure> {
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(wall(Wall::Namespaces, "unshare(CLONE_NEWCGROUP)"))?;
        sethostname("worker").map_err(wall(Wall::Namespaces, "sethostname"))?;
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
        self.enforced.namespaces =
            ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"].map(String::from).to_vec();
        Ok(self.advance())
    }
}
