//! As whom the launcher runs, and as whom its children.
//!
//! As root each child gets a host uid of its own. Otherwise the launcher makes a user namespace in
//! which it has every capability, and all children have its own uid: weaker, so only when that is
//! waived by name.

use std::fs;
use std::io;

use cloister_ipc::launch::{Configure, Failure, Stage, Wall};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};

use crate::failure::{failure, wall};
use crate::walls::INSIDE_ID;

/// As whom the launcher runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    /// Root of the host.
    Root,
    /// A user namespace of a host user.
    User {
        /// The user.
        uid: u32,
    },
}

impl Identity {
    /// Finds out, checks that it fits the configuration, and enters the user namespace if need be.
    pub(super) fn assume(configure: &Configure) -> Result<Self, Failure> {
        let invalid = io::Error::from_raw_os_error(nix::libc::EINVAL);
        let end = configure.uid_base.checked_add(configure.uid_count);
        if configure.uid_base == 0 || configure.uid_count == 0 || end.is_none() {
            let what = format!("uid range {} + {}", configure.uid_base, configure.uid_count);
            return Err(failure(Stage::Wall(Wall::OwnUid), &what, &invalid));
        }
        if Uid::effective().is_root() {
            return Ok(Self::Root);
        }
        if !configure.waived.contains(&Wall::OwnUid) {
            let error = io::Error::from_raw_os_error(nix::libc::EPERM);
            let what = "not started as root: Workers can't have uids of their own";
            return Err(failure(Stage::Wall(Wall::OwnUid), what, &error));
        }
        let (uid, gid) = (Uid::effective(), Gid::effective());
        unshare(CloneFlags::CLONE_NEWUSER).map_err(wall(
            Wall::Namespaces,
            "a user namespace without being root (see kernel.apparmor_restrict_unprivileged_userns, \
             kernel.unprivileged_userns_clone and user.max_user_namespaces)",
        ))?;
        for (name, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{INSIDE_ID} {uid} 1")),
            ("gid_map", format!("{INSIDE_ID} {gid} 1")),
        ] {
            let path = format!("/proc/self/{name}");
            fs::write(&path, text).map_err(wall(Wall::Namespaces, format!("writing {path}")))?;
        }
        Ok(Self::User { uid: uid.as_raw() })
    }

    /// What the launcher calls the uid `uid` of the host.
    pub(super) const fn inside(self, uid: u32) -> u32 {
        match self {
            Self::Root => uid,
            Self::User { .. } => INSIDE_ID,
        }
    }

    /// The uid that children share, when they do.
    pub(super) fn shared(self, configure: &Configure) -> Option<u32> {
        match self {
            Self::User { uid } => Some(uid),
            Self::Root => configure.waived.contains(&Wall::OwnUid).then_some(configure.uid_base),
        }
    }

    /// Does what makes and maps a child, with `/proc` entries that may be written meanwhile.
    pub(super) fn while_mapping<T>(self, act: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        if self == Self::Root {
            return act();
        }
        let failed = |what: &str| wall(Wall::Privilege, what.to_owned());
        cloister_sys::set_dumpable().map_err(failed("PR_SET_DUMPABLE, 1"))?;
        let done = act();
        cloister_sys::set_not_dumpable().map_err(failed("PR_SET_DUMPABLE, 0"))?;
        done
    }
}
