//! Page cache that is charged to Workers that are over.
//!
//! A page of a file is charged to the cgroup that first read it, and a memory cgroup lives, its folder removed or not, as
//! long as such a page is cached: more than 100 KiB each that no limit bounds. A Worker that sees the host's libraries
//! could leave one behind with every start. So the folders of those that are over stay for a while, and above a number
//! the kernel is asked to let go of what is charged to the oldest before they are removed. Not at each end: others may
//! use the same pages, and the next start of the same Worker. It waits for all CPUs and takes milliseconds, so a child
//! does it.

use cloister_ipc::launch::BlankId;
use cloister_sys::{Cloned, Namespaces, clone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Cgroups;

/// Folders that are kept as they are.
const KEPT: usize = 64;

/// The child that sweeps, and what waits for the next.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    waiting: Vec<BlankId>,
    running: Option<(i32, Vec<BlankId>)>,
}

impl Sweeper {
    /// Puts the folder of `blank` in the line.
    pub(super) fn add(&mut self, blank: BlankId) {
        self.waiting.push(blank);
    }

    /// Starts a child when none runs and too many folders wait. Returns those that can be removed at once, as no child
    /// can be had.
    pub(super) fn start(&mut self, cgroups: &Cgroups) -> Vec<BlankId> {
        if self.running.is_some() || self.waiting.len() <= KEPT {
            return Vec::new();
        }
        let blanks: Vec<_> = self.waiting.drain(..self.waiting.len() - KEPT / 2).collect();
        match clone(Namespaces::None, None) {
            Ok(Cloned::Child(_)) => {
                // It ends with the launcher, whose folder would stay busy.
                if cloister_sys::set_parent_death_kill().is_ok() {
                    blanks.iter().for_each(|blank| cgroups.empty(*blank));
                }
                cloister_sys::exit(0)
            }
            Ok(Cloned::Parent(pid)) => {
                self.running = Some((pid, blanks));
                Vec::new()
            }
            Err(error) => {
                eprintln!("sandbox-runner: memory of Workers that are over stays cached: {error}");
                blanks
            }
        }
    }

    /// The folders of the child `pid`, which is over.
    pub(super) fn ended(&mut self, pid: i32) -> Option<Vec<BlankId>> {
        self.running.take_if(|(running, _)| *running == pid).map(|(_, blanks)| blanks)
    }

    /// Ends the child: the launcher ends.
    pub(super) fn stop(&self) {
        if let Some((pid, _)) = &self.running {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL); // it may be over, not yet reaped
        }
    }

    /// All folders that wait, to be removed as they are.
    pub(super) fn give_up(&mut self) -> Vec<BlankId> {
        let mut blanks = std::mem::take(&mut self.waiting);
        blanks.extend(self.running.take().into_iter().flat_map(|(_, blanks)| blanks));
        blanks
    }
}
