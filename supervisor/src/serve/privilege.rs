//! From root to an ordinary account, or staying one.

use std::ops::Range;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

use super::error::{ServeError, exit};
use crate::config::Config;

/// The account the supervisor runs as once it serves.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Started as root: it becomes this account, which it is already otherwise.
    pub(super) from_root: bool,
}

/// The account of this start; an ordinary one, and none that Workers run as.
pub(super) fn account(config: &Config) -> Result<Account, ServeError> {
    if Uid::effective().is_root() {
        other(config.account_name(), &config.sandbox.uids)
    } else {
        own(config.user.as_deref())
    }
}

/// Started as an ordinary account: it stays that.
fn own(named: Option<&str>) -> Result<Account, ServeError> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let known = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let name = known.unwrap_or_else(|| format!("uid {uid}"));
    match named {
        Some(named) if named != name => {
            let what = format!("account {named:?} (key `user`)");
            let why = format!("started as {name}: only root can become another account");
            Err(ServeError::step(exit::PRIVILEGE, what, why)
                .fix("start it as root, for example by the systemd unit in packaging/, or leave `user` out"))
        }
        _ => Ok(Account { name, uid, gid, from_root: false }),
    }
}

/// Started as root: the account to become.
fn other(name: &str, workers: &Range<u32>) -> Result<Account, ServeError> {
    let what = format!("account {name:?} (key `user`)");
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
    Ok(Account { name: name.to_owned(), uid: user.uid, gid: user.gid, from_root: true })
}

/// Descriptors for which the process's table has room from the start (8 bytes each).
const TABLE: u64 = 1 << 16;

/// As many descriptors as the hard limit lets: each live Worker costs several.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) => {
            tracing::debug!(limit, "descriptor limit");
            if let Err(error) = widen_table(limit.min(TABLE)) {
                tracing::warn!(%error, "the table of descriptors can't be made larger: it will be when it is full");
            }
        }
        Err(error) => tracing::warn!(%error, "the descriptor limit can't be raised"),
    }
}

/// Makes the table of descriptors as large as for `count`; it never shrinks. To make it larger later would stop a
/// data plane thread: with several threads the kernel waits for all readers of the old one (`synchronize_rcu` in
/// fs/file.c), 15 ms and more.
fn widen_table(count: u64) -> std::io::Result<()> {
    let last = i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX);
    let any = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    rustix::io::fcntl_dupfd_cloexec(&any, last)?;
    Ok(())
}

/// Workers get a core limit of 1 byte, which keeps the kernel from running the host's crash handler for
/// them; where the hard limit is 0 they can't have it, and only root can raise that.
pub(super) fn raise_core_limit() {
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 1, 1) {
        tracing::warn!(%error, "the core limit is 0: the host's crash handler, if any, is run for Workers that crash");
    }
}

/// Becomes the account: no groups but its own, no capabilities in any set, no way back. Started as
/// that account it keeps its groups and the bounding set, which no_new_privs makes void.
pub(super) fn drop_to(account: &Account) -> Result<(), ServeError> {
    let failed = |what: &'static str| {
        move |error: nix::Error| {
            ServeError::step(exit::PRIVILEGE, format!("becoming an ordinary account: {what}"), error)
        }
    };
    let Account { uid, gid, .. } = account;
    if account.from_root {
        // First, since it takes a capability.
        caps::clear(None, caps::CapSet::Bounding).map_err(|error| {
            ServeError::step(exit::PRIVILEGE, "clearing the capability bounding set", error)
        })?;
        setgroups(&[*gid]).map_err(failed("setgroups"))?;
    }
    // Without root these settle the saved ids only: what started it may have been set-uid.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_descriptors_has_room_from_the_start() {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let count = soft.min(TABLE);
        widen_table(count).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= count, "{size} for {count}");
    }
}
