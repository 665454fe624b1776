//! Wall: cgroup. Its folder and limits were made by the launcher.

use std::fs::File;
use std::io::{self, Write};

use cloister_ipc::launch::{CgroupLimit, Failure, Stage, Wall};

use super::{Raising, stage};
use crate::failure::{failure, wall};

/// What must be bounded, by the names of v2 and of v1.
const BOUNDS: [[&str; 2]; 3] =
    [["memory.max", "memory.limit_in_bytes"], ["pids.max"; 2], ["cpu.max", "cpu.cfs_quota_us"]];

/// How a child comes into its cgroup.
#[derive(Debug)]
pub enum Entering {
    /// The clone put it there (v2).
    Cloned,
    /// By itself, through these files (v1: one for each hierarchy), opened by the launcher, whose right it is.
    Writes(Vec<File>),
}

impl Raising<stage::Cloned> {
    /// Moves into the folder of each v1 hierarchy. A move may wait for a grace period of the kernel,
    /// 20 ms at worst: here it delays one blank only. `limits` are those that the launcher wrote and
    /// read back; without a waiver there must be one for each thing that a cgroup bounds.
    ///
    /// # Errors
    /// The kernel's; or that there is no cgroup, or none that bounds.
    pub fn enter_cgroup(
        mut self,
        entering: Entering,
        limits: Vec<CgroupLimit>,
    ) -> Result<Raising<stage::Limited>, Failure> {
        demand(&entering, &limits, self.waived(Wall::Cgroup))?;
        let files = match entering {
            Entering::Cloned => Vec::new(),
            Entering::Writes(files) => files,
        };
        for mut file in files {
            file.write_all(b"0").map_err(wall(Wall::Cgroup, "moving into its cgroup"))?;
        }
        self.enforced.cgroup = limits;
        Ok(self.advance())
    }
}

/// Refuses what would leave the child without a cgroup, or in one that does not bound it.
fn demand(entering: &Entering, limits: &[CgroupLimit], waived: bool) -> Result<(), Failure> {
    if waived {
        return Ok(());
    }
    let refused = |what: &str| {
        let error = io::Error::from_raw_os_error(nix::libc::ENOENT);
        Err(failure(Stage::Wall(Wall::Cgroup), what, &error))
    };
    if matches!(entering, Entering::Writes(files) if files.is_empty()) {
        return refused("there is no cgroup to enter");
    }
    let bounded = |names: &[&str; 2]| limits.iter().any(|limit| names.contains(&limit.file.as_str()));
    match BOUNDS.iter().find(|names| !bounded(names)) {
        Some([name, _]) => refused(&format!("its cgroup sets no {name}, nor what v1 has for it")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: &[&str]) -> Vec<CgroupLimit> {
        files.iter().map(|file| CgroupLimit { file: (*file).into(), value: "1".into() }).collect()
    }

    #[test]
    fn a_child_that_nothing_bounds_is_refused_unless_that_is_waived() {
        let null = || File::open("/dev/null").unwrap();
        let v2 = limits(&["cpu.max", "cpu.weight", "memory.max", "pids.max"]);
        let v1 = limits(&["cpu.cfs_quota_us", "memory.limit_in_bytes", "pids.max"]);
        assert_eq!(demand(&Entering::Cloned, &v2, false), Ok(()));
        assert_eq!(demand(&Entering::Writes(vec![null()]), &v1, false), Ok(()));
        let nowhere = Entering::Writes(Vec::new());
        for (entering, limits) in [
            (&nowhere, &v1[..]),
            (&nowhere, &[]),
            (&Entering::Cloned, &[]),
            (&Entering::Cloned, &v2[..2]),
            (&Entering::Cloned, &v2[..3]),
            (&Entering::Cloned, &v2[1..]),
            (&Entering::Writes(vec![null()]), &v1[..2]),
            (&Entering::Writes(vec![null()]), &[v1[0].clone(), v1[2].clone()]),
        ] {
            let refused = demand(entering, limits, false).unwrap_err();
            assert_eq!(refused.stage, Stage::Wall(Wall::Cgroup), "{entering:?} {limits:?}");
            assert_eq!(demand(entering, limits, true), Ok(()), "{entering:?} {limits:?}");
        }
    }
}
