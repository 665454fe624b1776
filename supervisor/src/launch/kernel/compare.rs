//! Promised against seen, wall by wall.

use std::fmt::Display;

use cloister_ipc::launch::{CgroupMode, KernelView, MitigationState, MountEnforced, Wall};

use super::{Kernel, Walls};

/// Names of resource limits, the launcher's and the kernel's.
const LIMITS: [(&str, &str); 9] = [
    ("core", "Max core file size"),
    ("memlock", "Max locked memory"),
    ("msgqueue", "Max msgqueue size"),
    ("nice", "Max nice priority"),
    ("rtprio", "Max realtime priority"),
    ("sigpending", "Max pending signals"),
    ("stack", "Max stack size"),
    ("nproc", "Max processes"),
    ("nofile", "Max open files"),
];

/// Controllers without which there is no wall.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// What is gathered.
struct Found(Vec<String>);

impl Found {
    fn differ(&mut self, wall: Wall, promised: impl Display, seen: impl Display) {
        self.0.push(format!("{wall}: promised {promised}, seen {seen}"));
    }

    /// Compares one field of `status`.
    fn field(&mut self, wall: Wall, kernel: &Kernel, name: &str, promised: &str) {
        let seen = kernel.status.get(name).map_or("nothing", String::as_str);
        if seen != promised {
            self.differ(wall, format_args!("{name} {promised:?}"), format_args!("{seen:?}"));
        }
    }
}

/// Every disagreement, a sentence each.
pub(super) fn disagreements(walls: &Walls, view: &KernelView, kernel: &Kernel) -> Vec<String> {
    let mut found = Found(Vec::new());
    ids(walls, view, kernel, &mut found);
    privilege(walls, view, kernel, &mut found);
    seccomp(walls, kernel, &mut found);
    namespaces(walls, view, kernel, &mut found);
    mounts(walls, kernel, &mut found);
    rlimits(walls, kernel, &mut found);
    cgroup(walls, view, kernel, &mut found);
    mitigations(walls, kernel, &mut found);
    found.0
}

fn ids(walls: &Walls, view: &KernelView, kernel: &Kernel, found: &mut Found) {
    if walls.machine.own_uid && view.uid != walls.uid {
        found.differ(Wall::OwnUid, format_args!("uid {}", walls.uid), format_args!("uid {}", view.uid));
    }
    let four = [view.uid; 4].map(|uid| uid.to_string()).join(" ");
    found.field(Wall::OwnUid, kernel, "Uid", &four);
    found.field(Wall::OwnUid, kernel, "Gid", &four);
    if walls.machine.own_uid {
        found.field(Wall::OwnUid, kernel, "Groups", "");
    }
}

fn privilege(walls: &Walls, view: &KernelView, kernel: &Kernel, found: &mut Found) {
    let enforced = &walls.enforced;
    let mask = format!("{:016x}", enforced.capabilities);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        found.field(Wall::Privilege, kernel, set, &mask);
    }
    found.field(Wall::Privilege, kernel, "NoNewPrivs", if enforced.no_new_privs { "1" } else { "0" });
    // Entries of a process that is not dumpable are not its own.
    let unreadable = enforced
        .mitigations
        .iter()
        .any(|mitigation| mitigation.name == "unreadable-binary" && mitigation.state == MitigationState::On);
    if unreadable && kernel.proc_owner == view.uid {
        let seen = format!("entries in /proc that belong to its uid {}", kernel.proc_owner);
        found.differ(Wall::Privilege, "that it is not dumpable", seen);
    }
}

fn seccomp(walls: &Walls, kernel: &Kernel, found: &mut Found) {
    found.field(Wall::Seccomp, kernel, "Seccomp", "2");
    // A process may add filters of its own, never take one away.
    let promised = walls.enforced.seccomp.len();
    let seen = kernel.status.get("Seccomp_filters").map_or("nothing", String::as_str);
    if !seen.parse::<usize>().is_ok_and(|seen| seen >= promised) {
        found.differ(Wall::Seccomp, format_args!("{promised} filters"), seen);
    }
}

fn namespaces(walls: &Walls, view: &KernelView, kernel: &Kernel, found: &mut Found) {
    for (name, promised) in &walls.enforced.namespaces {
        match kernel.namespaces.get(name) {
            Some(seen) if seen == promised => {}
            Some(seen) => {
                found.differ(Wall::Namespaces, format_args!("{name} namespace {promised}"), seen);
            }
            None => found.differ(Wall::Namespaces, format_args!("{name} namespace {promised}"), "nothing"),
        }
    }
    for (name, (seen, launcher)) in
        cloister_ipc::launch::NAMESPACES.iter().zip(view.namespaces.iter().zip(&view.launcher_namespaces))
    {
        if seen == launcher {
            let promised = format!("a {name} namespace of its own");
            found.differ(Wall::Namespaces, promised, format_args!("the launcher's, {seen}"));
        }
    }
    // Process 1 of a pid namespace below the launcher's.
    let seen = kernel.status.get("NSpid").map_or("nothing", String::as_str);
    if !seen.ends_with(" 1") {
        found.differ(
            Wall::Namespaces,
            "to be process 1 of its pid namespace",
            format_args!("NSpid {seen:?}"),
        );
    }
}

/// The same points, the last mount of each with at least the options of the last promise for it.
fn mounts(walls: &Walls, kernel: &Kernel, found: &mut Found) {
    let promised = &walls.enforced.mounts;
    let count = |mounts: &[MountEnforced], point: &str| mounts.iter().filter(|m| m.point == point).count();
    for mount in &kernel.mounts {
        if count(promised, &mount.point) == 0 {
            let seen = format!("{} ({})", mount.point, mount.options);
            found.differ(Wall::Root, "no such mount", seen);
        }
    }
    let mut looked_at: Vec<&str> = Vec::new();
    for MountEnforced { point, .. } in promised {
        if looked_at.contains(&point.as_str()) {
            continue;
        }
        looked_at.push(point);
        let (wanted, seen) = (count(promised, point), count(&kernel.mounts, point));
        if wanted != seen {
            found.differ(Wall::Root, format_args!("{wanted} mounts at {point}"), seen);
        }
        let last = |mounts: &[MountEnforced]| {
            mounts.iter().rfind(|mount| mount.point == *point).map(|mount| mount.options.clone())
        };
        let (Some(wanted), Some(seen)) = (last(promised), last(&kernel.mounts)) else { continue };
        let has = |option: &str| option.is_empty() || seen.split(',').any(|seen| seen == option);
        if !wanted.split(',').all(has) {
            found.differ(Wall::Root, format_args!("{point} with {wanted}"), seen);
        }
    }
}

/// A process may lower its own limits, never raise them; but for core dumps, where 0 hands a dump to the
/// host's crash handler.
fn rlimits(walls: &Walls, kernel: &Kernel, found: &mut Found) {
    for (name, promised) in &walls.enforced.rlimits {
        let kernels =
            LIMITS.iter().find(|(ours, _)| ours == name).map_or(name.as_str(), |(_, theirs)| theirs);
        let seen = match kernel.limits.get(kernels) {
            Some(Some(seen)) if seen == promised || (seen < promised && name != "core") => continue,
            Some(Some(seen)) => seen.to_string(),
            Some(None) => "unlimited".into(),
            None => "nothing".into(),
        };
        let bound = if name == "core" { "exactly" } else { "at most" };
        found.differ(Wall::Rlimits, format_args!("{name} {bound} {promised}"), seen);
    }
}

fn cgroup(walls: &Walls, view: &KernelView, kernel: &Kernel, found: &mut Found) {
    if walls.machine.cgroup == CgroupMode::None {
        return;
    }
    let Some(folder) = &view.cgroup_folder else {
        found.differ(Wall::Cgroup, "a folder of its own", "none");
        return;
    };
    let end = format!("/{folder}");
    for controller in CONTROLLERS {
        let path = kernel.cgroups.iter().find_map(|(controllers, path)| {
            let v2 = controllers == "v2" && walls.machine.cgroup == CgroupMode::V2;
            (v2 || controllers.split(',').any(|name| name == controller)).then_some(path.as_str())
        });
        let seen = path.unwrap_or("nothing");
        if !seen.ends_with(&end) {
            found.differ(Wall::Cgroup, format_args!("{controller} bounded in {folder}"), seen);
        }
    }
    for limit in &walls.enforced.cgroup {
        let seen = kernel.cgroup_limits.iter().find(|seen| seen.file == limit.file);
        let seen = seen.map_or("nothing", |seen| seen.value.as_str());
        if seen != limit.value {
            found.differ(Wall::Cgroup, format_args!("{} = {}", limit.file, limit.value), seen);
        }
    }
    if walls.enforced.cgroup.is_empty() {
        found.differ(Wall::Cgroup, "limits", "none written");
    }
}

fn mitigations(walls: &Walls, kernel: &Kernel, found: &mut Found) {
    let on = walls.enforced.mitigations.iter().filter(|one| one.state == MitigationState::On);
    for mitigation in on {
        let (field, safe): (&str, &[&str]) = match mitigation.name.as_str() {
            "store-bypass" => (
                "Speculation_Store_Bypass",
                &["thread force mitigated", "thread mitigated", "globally mitigated", "not vulnerable"],
            ),
            "indirect-branch" => (
                "SpeculationIndirectBranch",
                &["conditional force disabled", "conditional disabled", "always disabled", "not affected"],
            ),
            "core-scheduling" => {
                if kernel.core_cookie.is_none_or(|cookie| cookie == 0) {
                    let seen = kernel.core_cookie.map_or("nothing", |_| "none");
                    found.differ(Wall::CoreScheduling, "a cookie", seen);
                }
                continue;
            }
            _ => continue,
        };
        let seen = kernel.status.get(field).map_or("nothing", String::as_str);
        if !safe.contains(&seen) {
            found.differ(Wall::Speculation, format_args!("{} on", mitigation.name), format_args!("{seen:?}"));
        }
    }
}
