//! What the kernel counts about processes and about itself.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::context::Failure;

/// Every process below `root` (not itself), by `/proc/PID/stat`.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        next.extend(&below);
        found.extend(below);
    }
    found
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, `)` too: the fields come after the last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Real uid of a process, as the host sees it.
pub(crate) fn uid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "Uid").and_then(|uid| uid.try_into().ok())
}

/// CPU time of all threads of a process in nanoseconds; 0 once it is gone.
pub(crate) fn cpu_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

/// Memory of a process by its own share of each page, in KiB.
pub(crate) fn pss_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    field(&text, "Pss")
}

/// The kernel's own use of memory, in KiB, by what for.
pub(crate) fn kernel_kib() -> BTreeMap<&'static str, u64> {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let names = [
        "MemAvailable",
        "MemFree",
        "Slab",
        "SUnreclaim",
        "PageTables",
        "KernelStack",
        "Percpu",
        "Shmem",
        "AnonPages",
    ];
    names.into_iter().filter_map(|name| Some((name, field(&text, name)?))).collect()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| *key == name)?.1.split_whitespace().next()?.parse().ok()
}

/// Waits until every thread of a process has a tracer.
pub(crate) fn traced(pid: u32, most: Duration) -> Result<(), Failure> {
    let end = Instant::now() + most;
    loop {
        let tasks =
            fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| format!("process {pid}: {error}"))?;
        let all = tasks.flatten().all(|task| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            field(&status, "TracerPid").is_none_or(|tracer| tracer != 0)
        });
        if all {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("strace did not attach to process {pid} within {most:?}").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
