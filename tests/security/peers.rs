//! Public programs that were made to find holes in kernels, and one of our own, run as tenants:
//! whatever they do, nothing outside of the Worker changes. `CLOISTER_TEST_FUZZ_SECONDS` is how long
//! each goes on (about; 10 when it is not set).

use std::time::{Duration, Instant};

use cloister_policies::seccomp::{self, Action, Decision, Profile, syscall_name};
use cloister_supervisor::launch::ExitStatus;
use cloister_supervisor::registry::{Allow, Contract};

use crate::cell::{Cell, SIGSYS};
use crate::host::Host;

/// How long each goes on.
fn seconds() -> u64 {
    // An emulated machine needs most of a minute to look at itself before and after.
    let usual = if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() { 4 } else { 10 };
    std::env::var("CLOISTER_TEST_FUZZ_SECONDS").map_or(usual, |seconds| seconds.parse().unwrap())
}

/// Calls that end who makes them at once: whoever shall get further leaves them out. That they do is
/// shown by `syscalls.rs`.
fn killing() -> Vec<u32> {
    let profile = Profile { contract: seccomp::Contract::Http, processes: true, jit: false };
    let decisions = seccomp::decisions(&profile).unwrap();
    let kills = decisions.into_iter().filter(|(_, decision)| *decision == Decision::Always(Action::Kill));
    kills.map(|(number, _)| number).collect()
}

fn peer(path: &'static str) -> Cell {
    Cell::debian(path).allow(Allow::Processes).resources(|resources| {
        resources.memory_bytes = 512 << 20;
        resources.tmp_bytes = 64 << 20;
        resources.pids = 400;
    })
}

/// Debian's `stress-ng`, some two hundred of its loads at a time. (Left out are those whose first look
/// at the machine is a call that kills, or that end all others where there is no System V semaphore.)
#[tokio::test]
async fn stress_ng_changes_nothing() {
    let host = Host::before();
    let mut neighbour = Cell::new("listener").arg("listen").start().await;
    assert_eq!(neighbour.line().await.as_deref(), Some("listening"));
    let time = seconds();
    let cell = peer("/usr/bin/stress-ng")
        .args(["--class", "os,filesystem,vm,scheduler,network,pipe,io,interrupt,memory,security,device"])
        .args(["--exclude", "userfaultfd,sem-sysv"])
        .args(["--all", "1", "--timeout", &format!("{time}s"), "--temp-path", "/tmp"])
        .args(["--metrics-brief", "--oomable"]);
    // It may not come to its end when its first process was chosen by the OOM killer: that is its own.
    let ended = cell.start().await.end_after(Some(Duration::from_secs(time + 30))).await;
    let loads = ended.errors.lines().find(|line| line.contains("dispatching hogs"));
    let loads = loads.unwrap_or_else(|| panic!("no load was started: {}", ended.errors)).matches(',').count();
    println!("{loads} loads, {:?}", ended.exit);
    assert!(loads > 150, "only {loads} loads");
    assert!(neighbour.process.exit().is_none());
    host.unchanged();
}

/// Debian's `trinity`: calls by chance, with arguments that know what each call wants. Its children
/// try to unshare at their start, which ends half of them: so it is run often, with other seeds.
#[tokio::test]
async fn trinity_changes_nothing() {
    let host = Host::before();
    let mut left_out = Vec::new();
    for number in killing() {
        // Its list has older names for some, and not all that we know.
        match syscall_name(number).unwrap() {
            "umount2" => left_out.extend(["-x", "umount"]),
            "open_tree_attr" | "nfsservctl" | "quotactl_fd" | "_sysctl" | "create_module" => {}
            name => left_out.extend(["-x", name]),
        }
    }
    // An emulated machine needs the usual turn for trinity's own start. (Longer turns show no more: half a
    // minute after its children are all stuck, trinity ends of its own fault.)
    let other = std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some();
    let (turn, least) = if other { (Duration::from_secs(20), 25) } else { (Duration::from_secs(2), 100) };
    for seed in 1..=seconds().div_ceil(2) {
        let cell = peer("/usr/bin/trinity")
            .allow(Allow::Proc)
            .args(["-C", "24", "-a", "64", "-l", "off", "-s", &seed.to_string()])
            .args(["--enable-fds=pipes,epoll,eventfd,timerfd,testfile,pseudo"])
            .args(&left_out);
        let mut running = cell.start().await;
        let (begin, mut made) = (Instant::now(), 0);
        // However slow its start is, it comes to its calls; when its children all wait, it is the time that ends it.
        loop {
            let left = turn.saturating_sub(begin.elapsed());
            let line = match (made < least, left) {
                (true, _) => running.line().await,
                (false, Duration::ZERO) => break,
                (false, left) => match tokio::time::timeout(left, running.line()).await {
                    Ok(line) => line,
                    Err(_) => break,
                },
            };
            match line {
                Some(line) => made += u64::from(line.contains(") = ")),
                None => break,
            }
        }
        let time = begin.elapsed();
        running.process.kill();
        let ended = running.end().await;
        println!("seed {seed}: {made} calls in {time:?}, {:?}", ended.exit);
        assert!(made >= least, "seed {seed}: only {made} calls: {ended:?}");
    }
    host.unchanged();
}

/// Our own, which leaves out what kills and so goes deeper: threads of one process, both contracts,
/// with and without processes.
#[tokio::test]
async fn calls_by_chance_change_nothing() {
    let host = Host::before();
    // And what would end it for reasons of its own: its exit, its thread pointer, its limits, its heap.
    let own = ["exit", "exit_group", "rt_sigreturn", "arch_prctl", "rseq", "setrlimit", "prlimit64", "brk"];
    let own = own.into_iter().chain(["sigaltstack", "vfork", "uretprobe", "set_robust_list"]);
    let own = own.filter_map(|wanted| (0..500).find(|number| syscall_name(*number) == Some(wanted)));
    let left_out: Vec<_> = killing().into_iter().chain(own).map(|number| number.to_string()).collect();
    let (mut calls, mut finished) = (0, 0);
    let seeds = seconds() * 2;
    for seed in 1..=seeds {
        let mut cell = Cell::new("fuzz").args([&seed.to_string(), "400"]).args(&left_out);
        cell = match seed % 4 {
            0 => cell.contract(Contract::Ipc),
            1 => cell.allow(Allow::Processes),
            2 => cell.allow(Allow::Proc).allow(Allow::Jit),
            _ => cell,
        };
        let ended = cell.start().await.end_after(Some(Duration::from_secs(20))).await;
        assert_ne!(
            ended.exit.status,
            ExitStatus::Signal(SIGSYS),
            "seed {seed}: killed by a call not left out"
        );
        let said = ended.lines.iter().rev().find_map(|line| line.strip_prefix("calls "));
        if let Some(count) = said.and_then(|said| said.split(' ').next()?.parse::<u64>().ok()) {
            calls += count;
            finished += 1;
        } else {
            println!("seed {seed}: {:?}", ended.exit);
        }
    }
    println!("{calls} calls, {finished} of {seeds} seeds to their end");
    assert!(finished * 2 >= seeds && calls > 1000 * seeds, "{calls} calls, {finished} seeds to their end");
    host.unchanged();
}
