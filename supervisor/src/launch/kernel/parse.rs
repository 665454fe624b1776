//! The kernel's texts: proc_pid_status(5), proc_pid_mountinfo(5), proc_pid_limits(5),
//! proc_pid_cgroup(5).

use std::collections::BTreeMap;

use cloister_ipc::launch::MountEnforced;

/// The fields of `status` that tell of walls.
const FIELDS: [&str; 14] = [
    "Uid",
    "Gid",
    "Groups",
    "NSpid",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "SpeculationIndirectBranch",
];

pub(super) fn status(text: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':')
            && FIELDS.contains(&name)
        {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            // The first counts: nothing that a process may choose comes before and has a line break.
            fields.entry(name.to_owned()).or_insert(value);
        }
    }
    fields
}

/// A line: id, parent, device, root, point, options, optional fields, `-`, type, source, options of
/// the file system.
pub(super) fn mounts(text: &str) -> Vec<MountEnforced> {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(4);
        let (point, options) = (before.next()?, before.next()?);
        let of_system = after.split(' ').nth(2)?;
        Some(MountEnforced::new(point, format!("{options},{of_system}")))
    };
    // A line that is not understood is a mount that nobody promised.
    text.lines().map(|line| mount(line).unwrap_or_else(|| MountEnforced::new(line, ""))).collect()
}

/// Hard limits, in the third column from the right or the second where there is no unit: the name
/// may have spaces, so the columns are found by the words that are values.
pub(super) fn limits(text: &str) -> BTreeMap<String, Option<u64>> {
    let value = |word: &str| word == "unlimited" || word.bytes().all(|byte| byte.is_ascii_digit());
    let mut limits = BTreeMap::new();
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(first) = words.iter().position(|word| value(word)) else { continue };
        let (name, values) = words.split_at(first);
        if let Some(hard) = values.get(1).filter(|word| value(word)) {
            limits.insert(name.join(" "), hard.parse().ok());
        }
    }
    limits
}

/// A line: number, controllers, path.
pub(super) fn cgroups(text: &str) -> BTreeMap<String, String> {
    let mut cgroups = BTreeMap::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        if let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) {
            let name = if number == "0" && controllers.is_empty() { "v2" } else { controllers };
            cgroups.insert(name.to_owned(), path.to_owned());
        }
    }
    cgroups
}
