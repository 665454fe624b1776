//! Resources: a Worker that takes all it can get hurts only itself.

use std::time::{Duration, Instant};

use cloister_supervisor::launch::ExitStatus;
use cloister_supervisor::registry::Allow;

use crate::cell::{Cell, Ended};

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

#[tokio::test]
async fn fork_bomb_is_bounded_and_leaves_nothing() {
    let mut bomb = taker("forks").allow(Allow::Processes).start().await;
    let line = bomb.line().await.unwrap();
    assert!(line.ends_with("EAGAIN"), "{line}");
    bomb.process.kill();
    let ended = bomb.end().await;
    assert_eq!(ended.exit.status, ExitStatus::Signal(9));
}

#[tokio::test]
async fn thread_bomb_is_bounded() {
    let ended = taker("threads").run().await;
    let (count, error) = got(&ended).unwrap();
    assert!(count < 32 && error == "EAGAIN", "{ended:?}");
}

#[tokio::test]
async fn descriptors_are_bounded() {
    let ended = taker("descriptors").run().await;
    let (count, error) = got(&ended).unwrap();
    assert!(count <= 1023 && error == "EMFILE", "{ended:?}");
}

#[tokio::test]
async fn tmp_is_bounded() {
    let ended = taker("tmp_bytes").run().await;
    let (bytes, error) = got(&ended).unwrap();
    assert!(bytes <= 4 << 20 && error == "ENOSPC", "{ended:?}");
}

/// Whatever kernel memory these take must count against the Worker: it is refused, or killed.
#[tokio::test]
async fn kernel_memory_counts() {
    for (what, most) in [
        ("tmp_files", 200_000),
        ("deep", 200_000),
        ("timers", 100_000),
        ("pipes", 72 << 20),
        ("unix_buffers", 72 << 20),
        ("tcp_buffers", 72 << 20),
        ("locked", 64 << 8),
        ("mappings", 200_000),
        ("page_tables", 64),
        ("in_flight", 200_000),
        ("watches", 200_000),
        // None: what the kernel keeps of a lock counts against nobody.
        ("locks", 0),
    ] {
        let ended = taker(what).run().await;
        println!("{what}: {ended:?}");
        match got(&ended) {
            Some((count, _)) => assert!(count <= most, "{what}: {ended:?}"),
            None => assert!(ended.exit.oom_killed, "{what}: {ended:?}"),
        }
    }
}

#[tokio::test]
async fn no_core_is_dumped() {
    let ended = taker("core").run().await;
    assert_eq!(ended.exit.status, ExitStatus::Signal(11), "{ended:?}");
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

#[tokio::test]
async fn a_stopped_worker_can_be_killed() {
    let mut stopped = taker("stop").start().await;
    stopped.line().await.unwrap();
    stopped.process.kill();
    assert_eq!(stopped.end().await.exit.status, ExitStatus::Signal(9));
}

#[tokio::test]
async fn log_flood_waits_for_its_reader() {
    let flood = taker("logs").start().await;
    // Nobody reads: it blocks in its own pipe, and takes nothing of anyone.
    flood.process.kill();
    assert_eq!(flood.process.exited().await.status, ExitStatus::Signal(9));
}

/// All of them at a time, again and again, while another Worker has its regular work to do: it comes
/// to its end, and most of its rounds are hardly late.
#[tokio::test]
async fn whoever_takes_all_takes_it_from_nobody() {
    let mut neighbour = Cell::new("pulse").arg(400).start().await;
    assert_eq!(neighbour.line().await.as_deref(), Some("ready"));
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
    let line = tokio::select! {
        line = neighbour.line() => line.expect("the neighbour comes to its end"),
        () = bombs => unreachable!(),
    };
    println!("rounds, median and worst in µs: {line}");
    let figures: Vec<u64> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    assert_eq!(figures[0], 400);
    // Alone it is 100 µs; a busy machine is no breach, a Worker that stands still is.
    assert!(figures[1] < 50_000, "half of its rounds were {} µs late", figures[1]);
}
