//! Resources: a Worker that takes all it can get hurts only itself.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cloister_supervisor::launch::ExitStatus;
use cloister_supervisor::registry::Allow;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cell::{Cell, Ended, Running};

fn taker(what: &str) -> Cell {
    Cell::new("resources").arg(what).resources(|resources| {
        resources.memory_bytes = 64 << 20;
        resources.tmp_bytes = 4 << 20;
        resources.pids = 32;
    })
}

/// What it said: how much it got, and the error that ended it. `None` when it was killed before.
fn got(ended: &Ended) -> Option<(u64, &str)> {
    let mut words = ended.lines.first()?.split(' ').skip(1);
    Some((words.next()?.parse().ok()?, words.next()?))
}

#[tokio::test]
async fn memory_bomb_dies_alone() {
    let mut neighbour = Cell::new("listener").arg("listen").start().await;
    assert_eq!(neighbour.line().await.as_deref(), Some("listening"));
    let ended = taker("memory").run().await;
    assert_eq!(ended.exit.status, ExitStatus::Signal(9), "{ended:?}");
    assert!(ended.exit.oom_killed, "{ended:?}");
    assert!(ended.exit.memory_peak.is_none_or(|peak| peak <= 65 << 20), "{ended:?}");
    assert!(neighbour.process.exit().is_none());
}

/// Processes of a Worker, by its pid namespace.
fn family(namespace: &Path) -> Vec<String> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    pids.filter(|path| std::fs::read_link(path.join("ns/pid")).is_ok_and(|is| is == namespace))
        .map(|path| path.display().to_string())
        .collect()
}

fn namespace_of(pid: i32) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap()
}

#[tokio::test]
async fn fork_bomb_is_bounded_and_leaves_nothing() {
    let mut bomb = taker("forks").allow(Allow::Processes).start().await;
    let namespace = namespace_of(bomb.process.pid());
    let line = bomb.line().await.unwrap();
    assert!(line.ends_with("EAGAIN"), "{line}");
    // Its children fork as well, so that the bound is reached, by all of them together.
    let count = family(&namespace).len();
    assert!((17..=32).contains(&count), "{count} processes");
    bomb.process.kill();
    let ended = bomb.end().await;
    assert_eq!(ended.exit.status, ExitStatus::Signal(9));
    assert_eq!(family(&namespace), [""; 0], "they outlive it");
}

#[tokio::test]
async fn thread_bomb_is_bounded() {
    let ended = taker("threads").run().await;
    assert_eq!(got(&ended), Some((31, "EAGAIN")), "{ended:?}");
}

#[tokio::test]
async fn descriptors_are_bounded() {
    let ended = taker("descriptors").run().await;
    // Beside standard input, output and error.
    assert_eq!(got(&ended), Some((1023 - 3, "EMFILE")), "{ended:?}");
}

#[tokio::test]
async fn tmp_is_bounded() {
    let ended = taker("tmp_bytes").run().await;
    let (bytes, error) = got(&ended).unwrap();
    assert!((3 << 20..=4 << 20).contains(&bytes) && error == "ENOSPC", "{ended:?}");
}

/// Whatever kernel memory these take must count against the Worker: it is refused, or killed.
#[tokio::test]
async fn kernel_memory_counts() {
    let memory = 64 << 20;
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    for (what, most, memory) in [
        // One inode for each KiB of /tmp.
        ("tmp_files", 4 << 10, memory),
        ("deep", 4 << 10, memory),
        // RLIMIT_SIGPENDING.
        ("timers", 1024, memory),
        // What one pipe holds, for each two descriptors.
        ("pipes", (1023 / 2) * (64 << 10), memory),
        ("unix_buffers", 64 << 20, memory),
        ("tcp_buffers", 64 << 20, memory),
        // RLIMIT_MEMLOCK in pages.
        ("locked", 16, memory),
        ("mappings", mappings.trim().parse().unwrap(), memory),
        // In GiB, of which each needs 2 MiB of tables.
        ("page_tables", 32, memory),
        // RLIMIT_NOFILE, and what one more message holds.
        ("in_flight", 1023 + 200, memory),
        // Each takes 192 bytes at least.
        ("watches", (16 << 20) / 192, 16 << 20),
        // None: what the kernel keeps of a lock counts against nobody.
        ("locks", 0, memory),
        ("flocks", 0, memory),
    ] {
        let ended = taker(what).resources(|resources| resources.memory_bytes = memory).run().await;
        println!("{what}: {ended:?}");
        match got(&ended) {
            Some((count, _)) => assert!(count <= most, "{what}: {ended:?}"),
            None => assert!(ended.exit.oom_killed, "{what}: {ended:?}"),
        }
    }
}

#[tokio::test]
async fn no_core_is_dumped() {
    let ended = taker("core").allow(Allow::Processes).run().await;
    assert_eq!(ended.lines, ["signal 11 core 0 files 0"], "{ended:?}");
    assert_eq!(ended.exit.status, ExitStatus::Code(0), "{ended:?}");
}

#[tokio::test]
async fn spinning_threads_get_their_share_and_die_at_once() {
    let mut spinner = taker("spin").resources(|resources| resources.cpu_percent = 20).start().await;
    assert_eq!(spinner.line().await.as_deref(), Some("spinning 9 0"));
    let begin = Instant::now();
    let ended = spinner.end_after(Some(Duration::from_secs(2))).await;
    let time = begin.elapsed();
    println!("{:?} of {time:?}", ended.exit.cpu);
    assert_eq!(ended.exit.status, ExitStatus::Signal(9));
    // A fifth of one CPU, with all that a period may add.
    assert!(ended.exit.cpu < time.mul_f64(0.4), "{:?} of {time:?}", ended.exit.cpu);
}

/// One letter of `/proc/PID/stat`.
fn state(pid: i32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().chars().take(1).collect()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A child that stopped itself, and a Worker that the host stopped.
#[tokio::test]
async fn who_is_stopped_can_be_killed() {
    let mut stopped = taker("stop").allow(Allow::Processes).start().await;
    let namespace = namespace_of(stopped.process.pid());
    assert_eq!(stopped.line().await.as_deref(), Some("stopped 19 0"));
    assert_eq!(family(&namespace).len(), 2);
    stopped.process.kill();
    assert_eq!(stopped.end().await.exit.status, ExitStatus::Signal(9));
    assert_eq!(family(&namespace), [""; 0], "the child outlives it");

    let mut whole = Cell::new("listener").arg("listen").start().await;
    assert_eq!(whole.line().await.as_deref(), Some("listening"));
    let pid = whole.process.pid();
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    until("a stop", || state(pid) == "T").await;
    whole.process.kill();
    assert_eq!(whole.end().await.exit.status, ExitStatus::Signal(9));
}

#[tokio::test]
async fn log_flood_waits_for_its_reader() {
    let flood = taker("logs").start().await;
    let pid = flood.process.pid();
    // Nobody reads: it blocks in its own pipe, and takes nothing of anyone.
    let in_write = || std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap().starts_with("1 0x2 ");
    until("a full pipe", || state(pid) == "S" && in_write()).await;
    flood.process.kill();
    assert_eq!(flood.process.exited().await.status, ExitStatus::Signal(9));
}

/// How late the rounds of a Worker with regular work are: half of them in µs.
async fn lateness(mut pulse: Running) -> u64 {
    let line = pulse.line().await.expect("it comes to its end");
    println!("rounds, median and worst in µs: {line}");
    let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    assert_eq!(figures[0], 400);
    figures[1]
}

async fn pulse() -> Running {
    let mut pulse = Cell::new("pulse").arg(400).start().await;
    assert_eq!(pulse.line().await.as_deref(), Some("ready"));
    pulse
}

/// All of them at a time, again and again, while another Worker has its regular work to do: it comes
/// to its end, and most of its rounds are hardly late.
#[tokio::test]
async fn whoever_takes_all_takes_it_from_nobody() {
    let before = lateness(pulse().await).await;
    let neighbour = pulse().await;
    let bombs = async {
        loop {
            let half = |resources: &mut cloister_supervisor::limits::Resources| resources.cpu_percent = 25;
            let (memory, spin) = (taker("memory").resources(half), taker("spin").resources(half));
            let (forks, logs) =
                (taker("forks").allow(Allow::Processes).resources(half), taker("logs").resources(half));
            let ended = tokio::join!(
                async { memory.run().await.exit.status },
                async { spin.start().await.end_after(Some(Duration::from_millis(300))).await.exit.status },
                async { forks.start().await.end_after(Some(Duration::from_millis(300))).await.exit.status },
                async { logs.start().await.end_after(Some(Duration::from_millis(100))).await.exit.status },
            );
            assert_eq!(ended.0, ExitStatus::Signal(9));
        }
    };
    let beside = tokio::select! {
        late = lateness(neighbour) => late,
        () = bombs => unreachable!(),
    };
    // A machine that others use is no breach, a Worker that stands still is: it is held against itself
    // alone, at the worse of two times.
    let alone = before.max(lateness(pulse().await).await);
    assert!(beside < 100 * alone, "half of its rounds were {beside} µs late, alone {alone} µs");
}
