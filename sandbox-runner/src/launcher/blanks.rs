//! The children: who lives, which uid is whose, what is left to clean.

use std::collections::HashMap;
use std::io;

use cloister_ipc::launch::{BlankId, Configure, ExitStatus, Exited, Failure, Stage, Wall};
use cloister_sys::Reaped;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::sweep::Sweeper;
use crate::cgroup::Cgroups;
use crate::failure::failure;

#[derive(Debug, Clone, Copy)]
struct Child {
    blank: BlankId,
    uid: u32,
    /// It sees files of the host, whose pages may be charged to it.
    libraries: bool,
}

/// All children.
#[derive(Debug)]
pub(super) struct Blanks {
    children: HashMap<i32, Child>,
    pids: HashMap<BlankId, i32>,
    /// Uids that were used and are free again.
    free: Vec<u32>,
    /// The next uid that was never used.
    next: u32,
    /// One past the last uid.
    end: u32,
    /// The uid of all, when they have none of their own.
    shared: Option<u32>,
    last_blank: BlankId,
    /// Folders that were busy when they were to be removed.
    busy: Vec<BlankId>,
    sweeper: Sweeper,
}

impl Blanks {
    pub(super) fn new(configure: &Configure, shared: Option<u32>) -> Self {
        Self {
            children: HashMap::new(),
            pids: HashMap::new(),
            free: Vec::new(),
            next: configure.uid_base,
            end: configure.uid_base.saturating_add(configure.uid_count),
            shared,
            last_blank: 0,
            busy: Vec::new(),
            sweeper: Sweeper::default(),
        }
    }

    /// Numbers only rise, so that a folder's name is never used twice.
    pub(super) fn claim(&mut self, blank: BlankId) -> Result<(), Failure> {
        if blank <= self.last_blank {
            let what = format!("blank {blank} after blank {}", self.last_blank);
            return Err(Failure { stage: Stage::Protocol, errno: nix::libc::EPROTO, what });
        }
        self.last_blank = blank;
        Ok(())
    }

    /// A host uid that no living child has. The oldest free one is not preferred: what the kernel
    /// counts for a uid ends with its processes.
    pub(super) fn uid(&mut self) -> Result<u32, Failure> {
        if let Some(shared) = self.shared {
            return Ok(shared);
        }
        if let Some(uid) = self.free.pop() {
            return Ok(uid);
        }
        if self.next >= self.end {
            let error = io::Error::from_raw_os_error(nix::libc::EAGAIN);
            return Err(failure(Stage::Wall(Wall::OwnUid), "every uid of the range is in use", &error));
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    pub(super) fn give_back(&mut self, uid: u32) {
        if self.shared.is_none() {
            self.free.push(uid);
        }
    }

    pub(super) fn born(&mut self, blank: BlankId, pid: i32, uid: u32, libraries: bool) {
        self.children.insert(pid, Child { blank, uid, libraries });
        self.pids.insert(blank, pid);
    }

    pub(super) fn pid(&self, blank: BlankId) -> Option<i32> {
        self.pids.get(&blank).copied()
    }

    /// The uid of the child `pid`.
    pub(super) fn uid_of(&self, pid: i32) -> Option<u32> {
        self.children.get(&pid).map(|child| child.uid)
    }

    /// Kills the init of a pid namespace, and with it everything in there. The pid can't be another
    /// process's: it is not free before it is reaped, which removes it here.
    pub(super) fn kill(&self, blank: BlankId) {
        if let Some(pid) = self.pids.get(&blank) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL); // it may be dead, not yet reaped
        }
    }

    pub(super) fn kill_all(&self) {
        for blank in self.pids.keys() {
            self.kill(*blank);
        }
        self.sweeper.stop();
    }

    /// Settles the affairs of a child that was reaped.
    pub(super) fn ended(&mut self, cgroups: &Cgroups, reaped: &Reaped) -> Option<Exited> {
        if let Some(swept) = self.sweeper.ended(reaped.pid) {
            self.remove_folders(cgroups, swept);
            return None;
        }
        let child = self.children.remove(&reaped.pid)?;
        self.pids.remove(&child.blank);
        self.give_back(child.uid);
        let story = cgroups.story(child.blank);
        if child.libraries {
            self.sweeper.add(child.blank);
        } else {
            self.remove_folder(cgroups, child.blank);
        }
        Some(Exited {
            blank: child.blank,
            status: match reaped.status {
                Ok(code) => ExitStatus::Code(code),
                Err(signal) => ExitStatus::Signal(signal),
            },
            oom_killed: story.oom_killed,
            cpu_us: u64::try_from(reaped.cpu.as_micros()).unwrap_or(u64::MAX),
            memory_peak: story.memory_peak,
        })
    }

    pub(super) fn remove_folder(&mut self, cgroups: &Cgroups, blank: BlankId) {
        if !cgroups.remove(blank) {
            self.busy.push(blank);
        }
    }

    fn remove_folders(&mut self, cgroups: &Cgroups, blanks: Vec<BlankId>) {
        blanks.into_iter().for_each(|blank| self.remove_folder(cgroups, blank));
    }

    /// Goes on with folders whose memory is given back before they are removed.
    pub(super) fn sweep(&mut self, cgroups: &Cgroups) {
        let blanks = self.sweeper.start(cgroups);
        self.remove_folders(cgroups, blanks);
    }

    /// Removes those as they are.
    pub(super) fn give_up_sweeping(&mut self, cgroups: &Cgroups) {
        let blanks = self.sweeper.give_up();
        self.remove_folders(cgroups, blanks);
    }

    pub(super) const fn has_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    /// Tries again to remove what was busy.
    pub(super) fn remove_busy(&mut self, cgroups: &Cgroups) {
        self.busy.retain(|blank| !cgroups.remove(*blank));
    }
}
