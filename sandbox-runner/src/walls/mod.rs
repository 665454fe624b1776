//! The walls as a chain of types.
//!
//! [`Raising<Stage>`] is a process with every wall up to `Stage`. Each wall consumes the stage before
//! it and gives the next, so that only a process behind all of them, each raised or waived by name,
//! has [`Raising::<Closed>::exec`]. What was really enforced is gathered on the way. That no other
//! order compiles is tested (`tests/chain`).
//!
//! | wall | from | to |
//! |---|---|---|
//! | cgroup | `Cloned` | `Limited` |
//! | own uid, namespaces | `Limited` | `Named` |
//! | root | `Named` | `Rooted` |
//! | network | `Rooted` | `Networked` |
//! | rlimits | `Networked` | `Bounded` |
//! | privilege, mitigations | `Bounded` | `Powerless` |
//! | seccomp, first filter | `Powerless` | `Filtered` |
//! | landlock (the binary is known) | `Filtered` | `Landlocked` |
//! | descriptors | `Landlocked` | `Closed` |
//! | seccomp, second filter, and exec | `Closed` | |

mod cgroup;
mod descriptors;
mod exec;
mod landlock;
mod namespaces;
mod network;
mod privilege;
mod rlimits;
mod root;
mod seccomp;

use std::io;
use std::marker::PhantomData;

use cloister_ipc::launch::{Enforced, Failure, Mitigation, MitigationState, Wall};
use cloister_sys::FreshChild;

pub use cgroup::Entering;
pub use descriptors::{Given, START_FD, Writable};
pub use exec::Arguments;
pub(crate) use landlock::{abi as landlock_abi, demand as demand_landlock, lacks as landlock_lacks};
pub(crate) use namespaces::ids as namespace_ids;
pub use namespaces::{INSIDE_ID, Outside};
pub use network::Sockets;
pub(crate) use network::tcp;

use crate::failure::failure;

/// Stages of the chain; types without values.
pub mod stage {
    /// Fresh from clone: in new namespaces, ids mapped.
    #[derive(Debug)]
    pub enum Cloned {}
    /// In its cgroup.
    #[derive(Debug)]
    pub enum Limited {}
    /// Its own uid, host name and cgroup namespace.
    #[derive(Debug)]
    pub enum Named {}
    /// In its own root.
    #[derive(Debug)]
    pub enum Rooted {}
    /// Its sockets are made.
    #[derive(Debug)]
    pub enum Networked {}
    /// Behind resource limits.
    #[derive(Debug)]
    pub enum Bounded {}
    /// Without privileges.
    #[derive(Debug)]
    pub enum Powerless {}
    /// Behind the first filter.
    #[derive(Debug)]
    pub enum Filtered {}
    /// Behind landlock.
    #[derive(Debug)]
    pub enum Landlocked {}
    /// With nothing open but what it is given.
    #[derive(Debug)]
    pub enum Closed {}
}

/// A process behind the walls up to `Stage`.
#[derive(Debug)]
pub struct Raising<Stage> {
    child: FreshChild,
    enforced: Enforced,
    /// The seccomp programs that were given to the kernel.
    filters: Vec<Vec<u8>>,
    stage: PhantomData<Stage>,
}

impl Raising<stage::Cloned> {
    /// Starts the chain; `waived` are the operator's, `inherited` the launcher's own filter.
    #[must_use]
    pub fn new(child: FreshChild, waived: &[Wall], inherited: Vec<u8>) -> Self {
        let seccomp = vec![seccomp::counted(&inherited)];
        let enforced = Enforced { waived: waived.to_vec(), seccomp, ..Enforced::default() };
        Self { child, enforced, filters: vec![inherited], stage: PhantomData }
    }
}

impl<Stage> Raising<Stage> {
    fn advance<Next>(self) -> Raising<Next> {
        Raising { child: self.child, enforced: self.enforced, filters: self.filters, stage: PhantomData }
    }

    fn waived(&self, wall: Wall) -> bool {
        wall.waivable() && self.enforced.waived.contains(&wall)
    }

    fn mitigation(&mut self, name: &str, state: MitigationState) {
        self.enforced.mitigations.push(Mitigation { name: name.into(), state });
    }

    /// Switches a mitigation on. An error in `absent` means that the machine has no such thing,
    /// which is reported; any other stops the start unless the wall is waived.
    fn switch(
        &mut self,
        wall: Wall,
        name: &str,
        absent: &[i32],
        on: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Failure> {
        let state = match on() {
            Ok(()) => MitigationState::On,
            Err(error) => match error.raw_os_error() {
                Some(errno) if absent.contains(&errno) => MitigationState::Unavailable(errno),
                _ if self.waived(wall) => MitigationState::Waived,
                _ => return Err(failure(cloister_ipc::launch::Stage::Wall(wall), name, &error)),
            },
        };
        self.mitigation(name, state);
        Ok(())
    }
}
