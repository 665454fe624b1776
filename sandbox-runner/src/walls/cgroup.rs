//! Wall: cgroup. Its folder and limits were made by the launcher.

use std::fs::File;
use std::io::Write;

use cloister_ipc::launch::{CgroupLimit, Failure, Wall};

use super::{Raising, stage};
use crate::failure::wall;

impl Raising<stage::Cloned> {
    /// Moves into the folder of each v1 hierarchy: `procs` were opened by the launcher, whose
    /// right it is. Empty on v2 (the clone put the child there) and when waived. A move may wait
    /// for a grace period of the kernel, 20 ms at worst: here it delays one blank only. `limits` are
    /// those that the launcher wrote and read back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter_cgroup(
        mut self,
        procs: Vec<File>,
        limits: Vec<CgroupLimit>,
    ) -> Result<Raising<stage::Limited>, Failure> {
        for mut file in procs {
            file.write_all(b"0").map_err(wall(Wall::Cgroup, "moving into its cgroup"))?;
        }
        self.enforced.cgroup = limits;
        Ok(self.advance())
    }
}
