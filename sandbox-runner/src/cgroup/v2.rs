//! One hierarchy with every controller.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use cloister_ipc::launch::{BlankId, CgroupLimit, CgroupSpec, Failure, Wall};

use super::{Story, detect, files, leftovers};
use crate::failure::wall;

/// Length of a `cpu.max` period, microseconds.
const PERIOD_US: u64 = 100_000;

/// The files that are limits. Without swap accounting the last is not there.
const LIMITS: [&str; 6] =
    ["cpu.max", "cpu.weight", "memory.max", "memory.oom.group", "pids.max", "memory.swap.max"];

/// Where the supervisor and the launcher go when they are alone in their own cgroup, since one with
/// processes can't give controllers to folders below it (unless it is the root).
const LEAF: &str = "cloister-main";

/// The launcher's folder.
#[derive(Debug)]
pub(crate) struct V2 {
    parent: OwnedFd,
    own: OwnedFd,
    name: String,
    path: String,
}

impl V2 {
    pub(super) fn prepare(proc: BorrowedFd<'_>, path: &str) -> Result<Self, Failure> {
        let failed = |what: &str| wall(Wall::Cgroup, format!("{path}: {what}"));
        // A launcher before this one may have moved the supervisor into the leaf already.
        let path = path.strip_suffix(&format!("/{LEAF}")).unwrap_or(path);
        let parent = files::folder(path).map_err(failed("opening"))?;
        give_controllers(&parent).map_err(failed("cgroup.subtree_control"))?;
        let parent = files::make_shared(&parent, leftovers::SHARED).map_err(failed("making a folder"))?;
        enable(&parent).map_err(failed("cgroup.subtree_control of the folder of launchers"))?;
        leftovers::clean(proc, &parent).map_err(failed("removing folders of dead launchers"))?;
        let name = leftovers::own_name(proc).map_err(failed("naming the launcher's folder"))?;
        files::make(&parent, &name).map_err(failed("making a folder"))?;
        let own = files::subfolder(&parent, &name).map_err(failed("opening the folder"))?;
        let v2 = Self { parent, own, path: format!("{path}/{}/{name}", leftovers::SHARED), name };
        match enable(&v2.own) {
            Ok(()) => Ok(v2),
            Err(error) => {
                let _ = v2.close(); // the next start removes what is left
                Err(failed("cgroup.subtree_control of the launcher's folder")(error))
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn limits(&self, blank: BlankId) -> io::Result<Vec<CgroupLimit>> {
        files::limits(&self.own, &format!("{blank}/"), &LIMITS)
    }

    pub(super) fn make(
        &self,
        blank: BlankId,
        spec: &CgroupSpec,
    ) -> Result<(OwnedFd, Vec<CgroupLimit>), Failure> {
        let made = self.make_folder(blank, spec);
        if made.is_err() {
            self.remove(blank);
        }
        made
    }

    fn make_folder(&self, blank: BlankId, spec: &CgroupSpec) -> Result<(OwnedFd, Vec<CgroupLimit>), Failure> {
        let (name, path) = (blank.to_string(), &self.path);
        files::make(&self.own, &name).map_err(wall(Wall::Cgroup, format!("making {path}/{name}")))?;
        let folder = files::subfolder(&self.own, &name)
            .map_err(wall(Wall::Cgroup, format!("opening {path}/{name}")))?;
        let quota = (PERIOD_US * u64::from(spec.cpu_percent) / 100).max(1000);
        let values = [
            format!("{quota} {PERIOD_US}"),
            spec.cpu_weight.clamp(1, 10_000).to_string(),
            spec.memory_bytes.to_string(),
            "1".into(),
            spec.pids.to_string(),
            "0".into(),
        ];
        let mut limits = Vec::new();
        for (file, value) in LIMITS.iter().zip(values) {
            match files::set(&folder, "", file, &value) {
                Ok(limit) => limits.push(limit),
                // No swap accounting.
                Err(error)
                    if error.raw_os_error() == Some(nix::libc::ENOENT) && *file == "memory.swap.max" => {}
                Err(error) => {
                    return Err(wall(Wall::Cgroup, format!("{path}/{name}/{file} = {value}"))(error));
                }
            }
        }
        Ok((folder, limits))
    }

    pub(super) fn story(&self, blank: BlankId) -> Story {
        let events = files::read(&self.own, &format!("{blank}/memory.events")).unwrap_or_default();
        let peak = files::read(&self.own, &format!("{blank}/memory.peak")); // since Linux 5.19
        Story {
            oom_killed: files::field(&events, "oom_kill").is_some_and(|count| count > 0),
            memory_peak: peak.ok().and_then(|text| text.trim().parse().ok()),
        }
    }

    pub(super) fn empty(&self, blank: BlankId) {
        // Since Linux 5.19; an error also says that not all could be had.
        let charged = files::read(&self.own, &format!("{blank}/memory.current")).unwrap_or_default();
        let _ = files::write(&self.own, &format!("{blank}/memory.reclaim"), charged.trim());
    }

    pub(super) fn remove(&self, blank: BlankId) -> bool {
        let removed = files::remove(&self.own, &blank.to_string());
        !removed.is_err_and(|error| error.raw_os_error() == Some(nix::libc::EBUSY))
    }

    pub(super) fn close(&self) -> io::Result<()> {
        files::remove_emptied(&self.parent, &self.name, &self.path)
    }
}

fn enable(folder: &OwnedFd) -> io::Result<()> {
    let wanted = detect::NEEDED.map(|name| format!("+{name}")).join(" ");
    files::write(folder, "cgroup.subtree_control", &wanted)
}

/// Enables the controllers for folders below `folder`. When the kernel wants it empty for that, the
/// supervisor and the launcher move into a leaf; a cgroup with others in it (a login session) is not
/// ours to rearrange, and stays busy.
fn give_controllers(folder: &OwnedFd) -> io::Result<()> {
    match enable(folder) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
        other => return other,
    }
    let ours = [std::process::id(), std::os::unix::process::parent_id()].map(|pid| pid.to_string());
    if files::read(folder, "cgroup.procs")?.lines().any(|pid| !ours.iter().any(|our| our == pid)) {
        return Err(io::Error::from_raw_os_error(nix::libc::EBUSY));
    }
    match files::make(folder, LEAF) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {}
        other => other?,
    }
    for pid in files::read(folder, "cgroup.procs")?.lines() {
        match files::write(folder, &format!("{LEAF}/cgroup.procs"), pid) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {} // it ended meanwhile
            other => other?,
        }
    }
    enable(folder)
}
