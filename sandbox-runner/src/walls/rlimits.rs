//! Wall: resource limits, for what cgroups don't bound.

use cloister_ipc::launch::{Failure, Spec, Wall};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Raising, stage};
use crate::failure::wall;

impl Raising<stage::Networked> {
    /// Sets soft and hard limits. None is ever raised: where the host's hard limit is lower, that
    /// one holds. (`RLIMIT_NOFILE` comes with the descriptors.)
    ///
    /// # Errors
    /// The kernel's, with the limit's name.
    pub fn limit_resources(mut self, spec: &Spec) -> Result<Raising<stage::Bounded>, Failure> {
        let limits = [
            // Too little for a file, and the one value that keeps the kernel from running the host's crash
            // handler (a pipe in kernel.core_pattern): 0 does not. The filter forbids to change it.
            ("core", Resource::RLIMIT_CORE, 1),
            ("memlock", Resource::RLIMIT_MEMLOCK, 64 << 10),
            ("msgqueue", Resource::RLIMIT_MSGQUEUE, 0),
            ("nice", Resource::RLIMIT_NICE, 0),
            // Counted for each user namespace and uid (Linux 5.14): also where Workers share a uid, and
            // then perhaps the only bound.
            ("nproc", Resource::RLIMIT_NPROC, u64::from(spec.cgroup.pids)),
            ("rtprio", Resource::RLIMIT_RTPRIO, 0),
            ("sigpending", Resource::RLIMIT_SIGPENDING, 1024),
            ("stack", Resource::RLIMIT_STACK, 8 << 20),
        ];
        for (name, resource, wanted) in limits {
            self.limit(name, resource, wanted)?;
        }
        Ok(self.advance())
    }
}

impl<Stage> Raising<Stage> {
    pub(super) fn limit(&mut self, name: &str, resource: Resource, wanted: u64) -> Result<(), Failure> {
        let (_, hard) = getrlimit(resource).map_err(wall(Wall::Rlimits, name))?;
        let limit = wanted.min(hard);
        setrlimit(resource, limit, limit).map_err(wall(Wall::Rlimits, format!("{name} = {limit}")))?;
        self.enforced.rlimits.push((name.into(), limit));
        Ok(())
    }
}
