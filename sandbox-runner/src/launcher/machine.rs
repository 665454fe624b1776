//! What the launcher holds of the host, once it has left the host's root.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cloister_ipc::launch::{Configure, Failure, Machine, Stage, Wall};
use cloister_sys::{CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_SYS_PTRACE};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::chdir;
use rustix::fs::{Mode, OFlags, openat};

use super::filter;
use super::identity::Identity;
use super::template::Templates;
use crate::cgroup::Cgroups;
use crate::failure::at;
use crate::walls;

/// What is kept for: clone into namespaces and setns (`SYS_ADMIN`, `SYS_CHROOT`), uid maps
/// (`SETUID`, `SETGID`), a Worker's network namespace by its `/proc` entry (`SYS_PTRACE`), and
/// killing other uids (`KILL`).
const KEPT: u64 = CAP_SYS_ADMIN | CAP_SYS_CHROOT | CAP_SETUID | CAP_SETGID | CAP_SYS_PTRACE | CAP_KILL;

/// What the launcher holds of the host.
#[derive(Debug)]
pub(super) struct Host {
    /// The host's `/proc`.
    pub(super) proc: OwnedFd,
    /// The launcher's own, empty network namespace.
    pub(super) network: OwnedFd,
    pub(super) templates: Templates,
    pub(super) cgroups: Cgroups,
    pub(super) identity: Identity,
    /// The launcher's namespaces, in the order of [`cloister_ipc::launch::NAMESPACES`].
    pub(super) namespaces: Vec<u64>,
    /// The launcher's own filter, which every child inherits.
    pub(super) filter: Vec<u8>,
    own_uid: bool,
}

impl Host {
    /// Finds out what there is, builds the template roots, leaves the host's root and network, and
    /// gives up what is not needed any more.
    pub(super) fn prepare(configure: &Configure) -> Result<Self, Failure> {
        let identity = Identity::assume(configure)?;
        walls::demand_landlock(walls::landlock_abi(), |wall| configure.waived.contains(&wall))?;
        let setup = |what: &str| at::<io::Error>(Stage::Setup, what.to_owned());
        let proc = open("/proc").map_err(setup("opening /proc"))?;
        let cgroups = Cgroups::prepare(proc.as_fd(), configure.waived.contains(&Wall::Cgroup))?;
        let prepared = (|| {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)
                .map_err(|error| setup("unshare")(error.into()))?;
            let network = open("/proc/self/ns/net").map_err(setup("opening its network namespace"))?;
            let templates = Templates::build(proc.as_fd())?;
            chdir("/").map_err(|error| setup("chdir")(error.into()))?;
            reduce().map_err(setup("giving up capabilities"))?;
            let filter = filter::program();
            cloister_sys::install_filter(&filter).map_err(setup("installing the launcher's own filter"))?;
            let own = openat(&proc, "self/ns", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
            let namespaces = own.map_err(io::Error::from).and_then(walls::namespace_ids);
            Ok((network, templates, namespaces.map_err(setup("looking at its namespaces"))?, filter))
        })();
        match prepared {
            Ok((network, templates, namespaces, filter)) => {
                let own_uid = identity.shared(configure).is_none();
                Ok(Self { proc, network, templates, cgroups, identity, namespaces, filter, own_uid })
            }
            Err(failure) => {
                let _ = cgroups.close(); // the failure that is told is the first one
                Err(failure)
            }
        }
    }

    pub(super) fn describe(&self) -> Machine {
        Machine {
            landlock_abi: walls::landlock_abi(),
            landlock_lacks: walls::landlock_lacks(walls::landlock_abi()),
            cgroup: self.cgroups.mode(),
            memory_folder: self.cgroups.memory_folder().map(str::to_owned),
            own_uid: self.own_uid,
        }
    }
}

/// Keeps [`KEPT`] only; nothing executed from here could ever get more.
fn reduce() -> io::Result<()> {
    cloister_sys::clear_ambient()?;
    cloister_sys::drop_bounding()?;
    cloister_sys::set_capabilities(KEPT)?;
    cloister_sys::set_no_new_privs()?;
    cloister_sys::set_not_dumpable()
}

pub(super) fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}
