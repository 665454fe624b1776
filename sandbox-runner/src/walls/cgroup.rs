//! Wall: cgroup. Its folder and limits were made by the launcher.

use std::fs::File;
use std::io::Write;

use cloister_ipc::launch::{Failure, Wall};

use super::{Raising, stage};
use crate::failure::wall;

impl Raising<stage::Cloned> {
    /// Moves into the folder of each v1 hierarchy: `procs` were opened by the launcher, whose
    /// right it is. Empty on v2 (the clone put the child there) and when waived. A move may wait
    /// for a grace period of the kernel, 20 ms at worst: here it delays one blank only.
    pub(crate) fn enter_cgroup(self, procs: Vec<File>) -> Result<Raising<stage::Limited>, Failure> {
        for mut file in procs {
            file.write_all(b"0").map_err(wall(Wall::Cgroup, "moving into its cgroup"))?;
        }
        Ok(self.advance())
    }
}
