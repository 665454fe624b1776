//! Starts and ends, again and again, in every way there is: nothing stays. `CLOISTER_TEST_CYCLES` is
//! how often.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloister_supervisor::launch::Launcher;
use cloister_supervisor::registry::{Allow, Contract};

use crate::cell::{Cell, launcher_with_uids};

/// Folders of a launcher's cgroups, in every hierarchy.
fn cgroups_of(launcher: u32) -> Vec<PathBuf> {
    let wanted = format!("cloister.{launcher}.");
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    for _ in 0..5 {
        for folder in std::mem::take(&mut folders) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                } else if entry.file_name().to_string_lossy().starts_with(&wanted) {
                    found.push(entry.path());
                } else {
                    folders.push(entry.path());
                }
            }
        }
    }
    found
}

fn folders_in(path: impl AsRef<Path>) -> usize {
    std::fs::read_dir(path).map_or(0, |entries| entries.flatten().filter(|e| e.path().is_dir()).count())
}

fn lines(path: String) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

/// Live objects of kinds that each start makes, in the whole kernel; none where it does not tell.
fn kernel_objects() -> Vec<(String, usize)> {
    let kinds = ["net_namespace", "pid_namespace", "user_namespace", "uts_namespace", "mnt_cache", "nsproxy"];
    let text = std::fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let live = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| kinds.contains(name))?;
        Some((name.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(live).collect()
}

/// Processes of the launcher's range of uids.
fn processes_of(uids: std::ops::Range<u32>) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let status = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("status")).ok());
    let is_of = |status: &String| {
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
        uid.is_some_and(|uid: u32| uids.contains(&uid))
    };
    status.filter(is_of).map(|status| status.lines().take(3).collect::<Vec<_>>().join(" ")).collect()
}

struct Weight {
    /// Descriptors and mounts of the launcher, cgroup folders, its children, its zombies, descriptors
    /// of this process.
    counts: [usize; 6],
    /// Its memory, KiB.
    memory: usize,
}

fn weigh(pid: u32) -> Weight {
    let of = |what: &str| std::fs::read_dir(format!("/proc/{what}/fd")).unwrap().count();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let children: Vec<_> = children.split_whitespace().collect();
    let zombie = |pid: &&&str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'))
    };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Weight {
        counts: [
            of(&pid.to_string()),
            lines(format!("/proc/{pid}/mountinfo")),
            cgroups_of(pid).iter().map(folders_in).sum(),
            children.len(),
            children.iter().filter(zombie).count(),
            of("self"),
        ],
        memory: memory.split_whitespace().next().unwrap().parse().unwrap(),
    }
}

/// One life, of the kind that `turn` says.
async fn life(launcher: &Launcher, turn: u64) {
    match turn % 6 {
        // Ends by itself.
        0 => drop(Cell::new("listener").arg("connect").try_start_on(launcher).await.unwrap().exited().await),
        // By a crash, in the other contract (where there is no port to look for).
        1 => {
            let cell = Cell::new("listener").arg("connect").contract(Contract::Ipc);
            cell.try_start_on(launcher).await.unwrap().exited().await;
        }
        // Leaves children and their children, in sessions of their own, which wait for ever.
        2 => {
            let cell = Cell::new("resources").arg("leave").allow(Allow::Processes);
            cell.try_start_on(launcher).await.unwrap().exited().await;
        }
        // Is killed at once.
        3 => {
            let process = Cell::new("listener").arg("listen").try_start_on(launcher).await.unwrap();
            process.kill();
            process.exited().await;
        }
        // Nobody wants it any more, somewhere in the middle of its start.
        4 => {
            let cell = Cell::new("listener").arg("listen");
            let start = cell.try_start_on(launcher);
            let _ = tokio::time::timeout(Duration::from_micros(turn * 37 % 2000), start).await;
        }
        // Nor when it is there.
        _ => drop(
            Cell::new("resources").arg("leave").allow(Allow::Processes).try_start_on(launcher).await.unwrap(),
        ),
    }
}

/// Runs the given turns of lives, a few beside each other.
async fn lives(launcher: &Launcher, turns: std::ops::Range<u64>) {
    use futures_util::StreamExt as _;
    let lives = futures_util::stream::iter(turns).map(|turn| life(launcher, turn));
    lives.buffer_unordered(4).for_each(|()| async {}).await;
}

#[tokio::test]
async fn nothing_leaks() {
    let (launcher, pid, uids) = launcher_with_uids(crate::cell::waived()).unwrap();
    lives(&launcher, 0..60).await;
    // The blanks that are kept, of three kinds two each, are made again a moment after the last start.
    let end = Instant::now() + Duration::from_secs(20);
    while weigh(pid).counts[3] < 6 {
        assert!(Instant::now() < end, "{:?}", weigh(pid).counts);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (before, objects) = (weigh(pid), kernel_objects());
    let cycles = std::env::var("CLOISTER_TEST_CYCLES").map_or(10_000, |count| count.parse().unwrap());
    let begin = Instant::now();
    lives(&launcher, 0..cycles).await;
    println!("{cycles} cycles in {:?}", begin.elapsed());
    // Blanks that wait come and go, and those that nobody wanted are on their way out: a few more or
    // fewer are no leak.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let after = weigh(pid);
        // This process has other tests' descriptors as well.
        let slack = [24, 24, 24, 24, 24, 64];
        let more = before.counts.iter().zip(after.counts).zip(slack);
        let grown = more.into_iter().any(|((before, after), slack)| after > before + slack);
        if !grown && after.memory < before.memory + 4096 {
            println!(
                "{:?}, {} KiB, then {:?}, {} KiB",
                before.counts, before.memory, after.counts, after.memory
            );
            break;
        }
        assert!(
            Instant::now() < end,
            "descriptors, mounts, cgroup folders, children, zombies, own descriptors: {:?} then {:?}; memory {} then {} KiB",
            before.counts,
            after.counts,
            before.memory,
            after.memory,
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("even after {:?}", begin.elapsed());
    launcher.shutdown().await;
    let end = Instant::now() + Duration::from_secs(20);
    // Others of this machine make and end namespaces too, and the kernel counts those last freed. But what
    // one kind of life in six leaves behind must show: less than a sixth (from 1,800 cycles on).
    let slack = usize::try_from(cycles / 8).unwrap().max(300);
    loop {
        let (folders, processes) = (cgroups_of(pid), processes_of(uids.clone()));
        let more: Vec<_> = kernel_objects()
            .into_iter()
            .zip(&objects)
            .filter(|((_, now), (_, before))| *now > before + slack)
            .collect();
        if folders.is_empty() && processes.is_empty() && more.is_empty() {
            return;
        }
        assert!(
            Instant::now() < end,
            "folders {folders:?}, processes {processes:?}, kernel objects {more:?} stay"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Places in libraries of the host that nobody has read since, each far from the others.
fn uncached() -> Vec<(PathBuf, u64)> {
    const FAR: u64 = 1 << 18;
    let mut folders = vec![PathBuf::from("/usr/lib")];
    let mut places = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(file) = std::fs::File::open(entry.path())
                && let Ok(about) = file.metadata()
                && about.len() >= FAR
                && rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).is_ok()
            {
                places.extend((0..about.len() / FAR).map(|at| (entry.path(), at * FAR)));
            }
        }
    }
    places
}

/// Whether a folder, if there is one, is on a file system without a disk behind it.
fn is_memory(path: &str) -> bool {
    const TMPFS: u64 = 0x0102_1994; // linux/magic.h
    const RAMFS: u64 = 0x8584_58f6;
    let Ok(system) = rustix::fs::statfs(path) else { return true };
    [TMPFS, RAMFS].contains(&u64::try_from(system.f_type).unwrap_or_default())
}

/// Memory cgroups that the kernel has, those too whose folder is gone.
fn memory_cgroups() -> usize {
    let text = std::fs::read_to_string("/proc/cgroups").unwrap();
    let row = text.lines().find(|line| line.starts_with("memory")).expect("a memory controller");
    row.split_whitespace().nth(2).unwrap().parse().unwrap()
}

/// A page of a library that a Worker is the first to read is charged to it, and would keep its memory cgroup alive
/// when it is over.
#[tokio::test]
async fn what_was_read_of_the_host_keeps_no_cgroup() {
    // In a guest whose root is memory nothing is read, and charged, anew.
    if is_memory("/usr/lib") {
        println!("/usr/lib lies in memory, or nowhere: nothing to try here");
        return;
    }
    let launcher = launcher_with_uids(crate::cell::waived()).unwrap().0;
    let places: Vec<_> = uncached().into_iter().take(240).collect();
    assert!(places.len() >= 60, "too few large libraries: {}", places.len());
    let (before, count) = (memory_cgroups(), places.len());
    for (path, at) in places {
        let cell = Cell::new("resources").dynamic().arg("page").arg(path.display()).arg(at);
        cell.try_start_on(&launcher).await.unwrap().exited().await;
    }
    // Some are kept, and others make cgroups meanwhile, but fewer than that.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let after = memory_cgroups();
        if after < before + count / 2 {
            println!("{count} starts: {before} memory cgroups, then {after}");
            return;
        }
        assert!(Instant::now() < end, "{count} starts: {before} memory cgroups, then {after}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
