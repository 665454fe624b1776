//! The walls as a chain of types.
//!
//! [`Raising<Stage>`] is a process with every wall up to `Stage`. Each wall consumes the stage before
//! it and gives the next, so that only a process behind all of them, each raised or waived by name,
//! has [`Raising::<Closed>::exec`]. What was really enforced is gathered on the way.
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

use std::marker::PhantomData;

use cloister_ipc::launch::{Enforced, Mitigation, MitigationState, Wall};
use cloister_sys::FreshChild;

pub(crate) use descriptors::{Given, START_FD, Writable};
pub(crate) use exec::Arguments;
pub(crate) use namespaces::INSIDE_ID;
pub(crate) use network::{Sockets, tcp};

/// Stages of the chain; types without values.
pub(crate) mod stage {
    /// Fresh from clone: in new namespaces, ids mapped.
    #[derive(Debug)]
    pub(crate) enum Cloned {}
    /// In its cgroup.
    #[derive(Debug)]
    pub(crate) enum Limited {}
    /// Its own uid, host name and cgroup namespace.
    #[derive(Debug)]
    pub(crate) enum Named {}
    /// In its own root.
    #[derive(Debug)]
    pub(crate) enum Rooted {}
    /// Its sockets are made.
    #[derive(Debug)]
    pub(crate) enum Networked {}
    /// Behind resource limits.
    #[derive(Debug)]
    pub(crate) enum Bounded {}
    /// Without privileges.
    #[derive(Debug)]
    pub(crate) enum Powerless {}
    /// Behind the first filter.
    #[derive(Debug)]
    pub(crate) enum Filtered {}
    /// Behind landlock.
    #[derive(Debug)]
    pub(crate) enum Landlocked {}
    /// With nothing open but what it is given.
    #[derive(Debug)]
    pub(crate) enum Closed {}
}

/// A process behind the walls up to `Stage`.
#[derive(Debug)]
pub(crate) struct Raising<Stage> {
    child: FreshChild,
    enforced: Enforced,
    stage: PhantomData<Stage>,
}

impl Raising<stage::Cloned> {
    /// Starts the chain; `waived` are the operator's, `inherited` the instructions of the launcher's
    /// own filter.
    pub(crate) fn new(child: FreshChild, waived: &[Wall], inherited: u32) -> Self {
        let enforced = Enforced { waived: waived.to_vec(), seccomp: vec![inherited], ..Enforced::default() };
        Self { child, enforced, stage: PhantomData }
    }
}

impl<Stage> Raising<Stage> {
    fn advance<Next>(self) -> Raising<Next> {
        Raising { child: self.child, enforced: self.enforced, stage: PhantomData }
    }

    fn waived(&self, wall: Wall) -> bool {
        wall.waivable() && self.enforced.waived.contains(&wall)
    }

    fn mitigation(&mut self, name: &str, state: MitigationState) {
        self.enforced.mitigations.push(Mitigation { name: name.into(), state });
    }
}
