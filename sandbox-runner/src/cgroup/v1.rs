//! A hierarchy per controller (v1, and hybrid hosts whose v2 has no controllers).

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use cloister_ipc::launch::{BlankId, CgroupLimit, CgroupSpec, Failure, Wall};

use super::{Story, files, leftovers};
use crate::failure::wall;

/// Length of `cpu.cfs_period_us`.
const PERIOD_US: u64 = 100_000;

/// The files that are limits, whichever hierarchy has them.
const LIMITS: [&str; 7] = [
    "cpu.cfs_period_us",
    "cpu.cfs_quota_us",
    "cpu.shares",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "memory.kmem.tcp.limit_in_bytes",
    "pids.max",
];

/// Least memory for TCP buffers, bytes.
const TCP_LEAST: u64 = 4 << 20;

/// The launcher's folder in one hierarchy.
#[derive(Debug)]
struct Hierarchy {
    parent: OwnedFd,
    own: OwnedFd,
    path: String,
    cpu: bool,
    memory: bool,
    swap: bool,
    tcp: bool,
    pids: bool,
}

/// The launcher's folders.
#[derive(Debug)]
pub(crate) struct V1 {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl V1 {
    pub(super) fn prepare(proc: BorrowedFd<'_>, folders: &[String]) -> Result<Self, Failure> {
        let name = leftovers::own_name(proc).map_err(wall(Wall::Cgroup, "naming the launcher's folder"))?;
        let open = |path: &String| -> io::Result<Hierarchy> {
            let parent = files::make_shared(files::folder(path)?, leftovers::SHARED)?;
            leftovers::clean(proc, &parent)?;
            files::make(&parent, &name)?;
            let own = files::subfolder(&parent, &name)?;
            let has = |file: &str| rustix::fs::statat(&own, file, rustix::fs::AtFlags::empty()).is_ok();
            let (cpu, memory) = (has("cpu.cfs_quota_us"), has("memory.limit_in_bytes"));
            let (swap, pids) = (has("memory.memsw.limit_in_bytes"), has("pids.max"));
            let tcp = has("memory.kmem.tcp.limit_in_bytes");
            Ok(Hierarchy {
                parent,
                own,
                path: format!("{path}/{}/{name}", leftovers::SHARED),
                cpu,
                memory,
                swap,
                tcp,
                pids,
            })
        };
        let mut v1 = Self { name: name.clone(), hierarchies: Vec::new() };
        for path in folders {
            match open(path) {
                Ok(hierarchy) => v1.hierarchies.push(hierarchy),
                Err(error) => {
                    let _ = v1.close(); // the next start removes what is left
                    return Err(wall(Wall::Cgroup, format!("preparing {path}/{name}"))(error));
                }
            }
        }
        Ok(v1)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn memory_path(&self) -> Option<&str> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.memory).map(|hierarchy| hierarchy.path.as_str())
    }

    pub(super) fn limits(&self, blank: BlankId) -> io::Result<Vec<CgroupLimit>> {
        let mut limits = Vec::new();
        for hierarchy in &self.hierarchies {
            limits.extend(files::limits(&hierarchy.own, &format!("{blank}/"), &LIMITS)?);
        }
        Ok(limits)
    }

    pub(super) fn make(
        &self,
        blank: BlankId,
        spec: &CgroupSpec,
    ) -> Result<(Vec<File>, Vec<CgroupLimit>), Failure> {
        let (mut entries, mut limits) = (Vec::new(), Vec::new());
        for hierarchy in &self.hierarchies {
            match hierarchy.make(blank, spec, &mut limits) {
                Ok(entry) => entries.push(entry),
                Err(failure) => {
                    self.remove(blank);
                    return Err(failure);
                }
            }
        }
        Ok((entries, limits))
    }

    pub(super) fn story(&self, blank: BlankId) -> Story {
        let Some(memory) = self.hierarchies.iter().find(|hierarchy| hierarchy.memory) else {
            return Story::default();
        };
        let control = files::read(&memory.own, &format!("{blank}/memory.oom_control")).unwrap_or_default();
        let peak = files::read(&memory.own, &format!("{blank}/memory.max_usage_in_bytes"));
        Story {
            oom_killed: files::field(&control, "oom_kill").is_some_and(|count| count > 0),
            memory_peak: peak.ok().and_then(|text| text.trim().parse().ok()),
        }
    }

    pub(super) fn empty(&self, blank: BlankId) {
        for hierarchy in self.hierarchies.iter().filter(|hierarchy| hierarchy.memory) {
            let _ = files::write(&hierarchy.own, &format!("{blank}/memory.force_empty"), "0"); // what it can
        }
    }

    pub(super) fn remove(&self, blank: BlankId) -> bool {
        let name = blank.to_string();
        let mut gone = true;
        for hierarchy in &self.hierarchies {
            let removed = files::remove(&hierarchy.own, &name);
            gone &= !removed.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY));
        }
        gone
    }

    pub(super) fn close(&self) -> io::Result<()> {
        let mut closed = Ok(());
        // Each of them is tried; the first error is told.
        for hierarchy in &self.hierarchies {
            closed = closed.and(files::remove_emptied(&hierarchy.parent, &self.name, &hierarchy.path));
        }
        closed
    }
}

impl Hierarchy {
    fn make(
        &self,
        blank: BlankId,
        spec: &CgroupSpec,
        limits: &mut Vec<CgroupLimit>,
    ) -> Result<File, Failure> {
        let name = blank.to_string();
        let path = &self.path;
        files::make(&self.own, &name).map_err(wall(Wall::Cgroup, format!("making {path}/{name}")))?;
        let mut set = |file: &str, value: String| {
            let limit = files::set(&self.own, &format!("{name}/"), file, &value)
                .map_err(wall(Wall::Cgroup, format!("{path}/{name}/{file} = {value}")))?;
            limits.push(limit);
            Ok(())
        };
        if self.cpu {
            set("cpu.cfs_period_us", PERIOD_US.to_string())?;
            set("cpu.cfs_quota_us", (PERIOD_US * u64::from(spec.cpu_percent) / 100).max(1000).to_string())?;
            set("cpu.shares", (u64::from(spec.cpu_weight) * 1024 / 100).max(2).to_string())?;
        }
        if self.memory {
            set("memory.limit_in_bytes", spec.memory_bytes.to_string())?;
            if self.swap {
                set("memory.memsw.limit_in_bytes", spec.memory_bytes.to_string())?;
            }
            if self.tcp {
                // v1 counts TCP buffers apart, and only when limited: gigabytes otherwise.
                let buffers = (spec.memory_bytes / 4).max(TCP_LEAST);
                set("memory.kmem.tcp.limit_in_bytes", buffers.to_string())?;
            }
        }
        if self.pids {
            set("pids.max", spec.pids.to_string())?;
        }
        files::writer(&self.own, &format!("{name}/cgroup.procs"))
            .map_err(wall(Wall::Cgroup, format!("opening {path}/{name}/cgroup.procs")))
    }
}
