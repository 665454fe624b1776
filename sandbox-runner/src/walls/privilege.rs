//! Wall: no privilege; and the mitigations that are switched by prctl.

use std::io;
use std::os::fd::BorrowedFd;

use cloister_ipc::launch::{Failure, MitigationState, Spec, Stage, Wall};
use cloister_sys::{SECUREBITS_LOCKED, Speculation};
use nix::libc;

use super::{INSIDE_ID, Raising, stage};
use crate::failure::{failure, wall};

impl Raising<stage::Bounded> {
    /// Drops every capability from every set for good, and reads back that it is so.
    ///
    /// # Errors
    /// The step that failed, or what was left.
    pub fn drop_privileges(mut self, spec: &Spec) -> Result<Raising<stage::Powerless>, Failure> {
        let at = |what: &str| wall(Wall::Privilege, what.to_owned());
        cloister_sys::clear_ambient().map_err(at("clearing ambient capabilities"))?;
        cloister_sys::drop_bounding().map_err(at("dropping the bounding set"))?;
        cloister_sys::lock_securebits().map_err(at("locking the secure bits"))?;
        cloister_sys::set_capabilities(0).map_err(at("capset"))?;
        cloister_sys::set_no_new_privs().map_err(at("no_new_privs"))?;
        cloister_sys::set_not_dumpable().map_err(at("PR_SET_DUMPABLE"))?;
        cloister_sys::set_parent_death_kill().map_err(at("PR_SET_PDEATHSIG"))?;

        self.enforced.capabilities = cloister_sys::capabilities_left().map_err(at("capget"))?;
        self.enforced.no_new_privs = cloister_sys::no_new_privs().map_err(at("PR_GET_NO_NEW_PRIVS"))?;
        self.enforced.securebits = cloister_sys::securebits().map_err(at("PR_GET_SECUREBITS"))?;
        let dumpable = cloister_sys::dumpable().map_err(at("PR_GET_DUMPABLE"))?;
        let powerless = self.enforced.capabilities == 0
            && self.enforced.no_new_privs
            && self.enforced.securebits == SECUREBITS_LOCKED
            && dumpable == 0;
        if !powerless {
            let error = io::Error::other(format!("{:?}, dumpable {dumpable}", self.enforced));
            return Err(failure(Stage::Wall(Wall::Privilege), "something was left", &error));
        }
        self.mitigate(spec)?;
        Ok(self.advance())
    }

    fn mitigate(&mut self, spec: &Spec) -> Result<(), Failure> {
        let wall = Wall::MemoryDenyWriteExecute;
        if spec.jit {
            self.mitigation(wall.name(), MitigationState::Waived);
        } else {
            // Every kernel since 6.3 has it: not to have it is a wall that is missing.
            self.switch(wall, wall.name(), &[], cloister_sys::deny_write_execute)?;
        }
        let absent = [libc::ENODEV, libc::ENXIO, libc::EPERM, libc::EINVAL];
        for (name, what) in [
            ("store-bypass", Speculation::StoreBypass),
            ("indirect-branch", Speculation::IndirectBranch),
            ("l1d-flush", Speculation::L1dFlush),
        ] {
            self.switch(Wall::Speculation, name, &absent, || cloister_sys::disable_speculation(what))?;
        }
        let absent = [libc::ENODEV, libc::EINVAL];
        let wall = Wall::CoreScheduling;
        self.switch(wall, wall.name(), &absent, cloister_sys::core_scheduling_cookie)
    }
}

impl<Stage> Raising<Stage> {
    /// Exec makes a process dumpable again unless it may not read what it executes: then its memory
    /// and `/proc` entries stay root's. Checks the binary's mode for that.
    pub(super) fn check_unreadable(&mut self, binary: BorrowedFd<'_>) -> Result<(), Failure> {
        let name = "unreadable-binary";
        let about = rustix::fs::fstat(binary).map_err(wall(Wall::Privilege, "fstat of the binary"))?;
        let class = match about {
            ref own if own.st_uid == INSIDE_ID => 0o400,
            ref own if own.st_gid == INSIDE_ID => 0o040,
            _ => 0o004,
        };
        if about.st_mode & class == 0 {
            self.mitigation(name, MitigationState::On);
        } else if self.waived(Wall::OwnUid) {
            self.mitigation(name, MitigationState::Waived); // the supervisor's files are the Worker's too
        } else {
            let error = io::Error::from_raw_os_error(libc::EACCES);
            let what =
                format!("the Worker may read its binary (mode {:o}), so it would be dumpable", about.st_mode);
            return Err(failure(cloister_ipc::launch::Stage::Wall(Wall::Privilege), &what, &error));
        }
        Ok(())
    }
}
