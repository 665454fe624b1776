//! From root to an ordinary account.

use std::ops::Range;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

use super::error::{ServeError, exit};

/// The account the supervisor becomes.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
}

/// Looks the account up; it must be an ordinary one, and none that Workers run as.
pub(super) fn account(name: &str, workers: &Range<u32>) -> Result<Account, ServeError> {
    let what = format!("account {name:?} (key `user`)");
    if !Uid::effective().is_root() {
        let why = "only root can raise every wall and then become another account";
        return Err(ServeError::step(exit::PRIVILEGE, "cloister serve", why).fix(
            "start it as root, or by the systemd unit in packaging/; `cloister doctor` tells what is missing",
        ));
    }
    let found =
        User::from_name(name).map_err(|error| ServeError::step(exit::PRIVILEGE, what.clone(), error))?;
    let Some(user) = found else {
        let fix = format!(
            "useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin {name}"
        );
        return Err(ServeError::step(exit::PRIVILEGE, what, "does not exist").fix(fix));
    };
    if user.uid.is_root() || user.gid.as_raw() == 0 {
        return Err(ServeError::step(exit::PRIVILEGE, what, "is root: the supervisor must not be")
            .fix("name an account of its own"));
    }
    if workers.contains(&user.uid.as_raw()) || workers.contains(&user.gid.as_raw()) {
        let why = format!(
            "its uid or gid lies in sandbox.uid_base..+uid_count ({workers:?}), which Workers run as"
        );
        return Err(ServeError::step(exit::CONFIG, what, why).fix("choose another sandbox.uid_base"));
    }
    Ok(Account { name: name.to_owned(), uid: user.uid, gid: user.gid })
}

/// As many descriptors as the hard limit lets: each live Worker costs several.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) => tracing::debug!(limit, "descriptor limit"),
        Err(error) => tracing::warn!(%error, "the descriptor limit can't be raised"),
    }
}

/// Becomes the account: no groups but its own, no capabilities in any set, no way back.
pub(super) fn drop_to(account: &Account) -> Result<(), ServeError> {
    let failed = |what: &'static str| {
        move |error: nix::Error| {
            ServeError::step(exit::PRIVILEGE, format!("becoming an ordinary account: {what}"), error)
        }
    };
    let Account { uid, gid, .. } = account;
    // First, since it takes a capability.
    caps::clear(None, caps::CapSet::Bounding)
        .map_err(|error| ServeError::step(exit::PRIVILEGE, "clearing the capability bounding set", error))?;
    setgroups(&[*gid]).map_err(failed("setgroups"))?;
    setresgid(*gid, *gid, *gid).map_err(failed("setresgid"))?;
    setresuid(*uid, *uid, *uid).map_err(failed("setresuid"))?;
    for set in
        [caps::CapSet::Ambient, caps::CapSet::Inheritable, caps::CapSet::Effective, caps::CapSet::Permitted]
    {
        caps::clear(None, set).map_err(|error| {
            ServeError::step(exit::PRIVILEGE, format!("clearing {set:?} capabilities"), error)
        })?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(failed("no_new_privs"))?;
    // Its memory has secrets: no core dump, and no other process of the account may look into it.
    nix::sys::prctl::set_dumpable(false).map_err(failed("not dumpable"))?;
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(ServeError::step(
            exit::PRIVILEGE,
            "becoming an ordinary account",
            "root could be regained",
        ));
    }
    Ok(())
}
