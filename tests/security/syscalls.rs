//! Every system call number, with bad arguments, from inside: a committed table, so that any
//! widening shows in review. `CLOISTER_BLESS=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use cloister_policies::seccomp::syscall_name;
use cloister_supervisor::launch::ExitStatus;
use cloister_supervisor::registry::{Allow, Contract};
use futures_util::StreamExt as _;

use crate::cell::{Cell, SIGSYS};

/// Past the newest number any kernel has.
const LAST: u32 = 500;

/// Results of all numbers from `first` to `last`, in order.
async fn table(cell: &Cell, first: u32, last: u32, entry: &str) -> Vec<(u32, String)> {
    let mut results: Vec<(u32, String)> = Vec::new();
    loop {
        let next = results.last().map_or(first, |(number, _)| number + 1);
        if next > last {
            return results;
        }
        let ended = cell.clone().arg(next).arg(last).arg(entry).run().await;
        let before = results.len();
        for line in ended.lines.iter().filter(|line| *line != "end") {
            let (number, result) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            let result = match (result, ended.exit.status) {
                ("", ExitStatus::Signal(SIGSYS)) => "killed".to_owned(),
                // exit and rt_sigreturn do what they say.
                ("", _) => "allowed, ends it".to_owned(),
                (result, _) => result.to_owned(),
            };
            results.push((number.parse().unwrap(), result));
        }
        assert!(results.len() > before, "no progress at {next}: {ended:?}");
    }
}

async fn snapshot(name: &str, cell: Cell) {
    let mut text = String::from("# System calls from inside, each with six arguments of -1.\n");
    for (number, result) in table(&cell, 0, LAST, "").await {
        writeln!(text, "{number} {} = {result}", syscall_name(number).unwrap_or("-")).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("security/snapshots").join(name);
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    let differences: Vec<_> = committed
        .lines()
        .zip(text.lines())
        .filter(|(was, is)| was != is && !only_the_kernel_differs(was, is))
        .collect();
    assert!(differences.is_empty(), "was, is: {differences:#?}");
    assert_eq!(committed.lines().count(), text.lines().count());
}

/// Kernels refuse bad arguments of an allowed call in different words, and an older one lacks a
/// call. What the filter kills, or what began to work, is never such a difference.
fn only_the_kernel_differs(was: &str, is: &str) -> bool {
    // No filter sees these two (x86_64, since Linux 6.11 and 6.18): the kernel itself kills whoever
    // calls them outside of its own trampoline.
    if ["335 ", "336 "].iter().any(|number| was.starts_with(number)) {
        return is.ends_with("ENOSYS") || is.ends_with("allowed, ends it");
    }
    let result = |line: &str| line.rsplit(" = ").next().unwrap_or_default().to_owned();
    let (was, is) = (result(was), result(is));
    let fixed =
        |result: &str| result == "killed" || result.starts_with("ok") || result.starts_with("allowed");
    let other = std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some();
    other && was != "ENOSYS" && !fixed(&was) && !fixed(&is)
}

#[tokio::test]
async fn every_number_http() {
    snapshot("http.txt", Cell::new("syscalls")).await;
}

#[tokio::test]
async fn every_number_ipc() {
    snapshot("ipc.txt", Cell::new("syscalls").contract(Contract::Ipc)).await;
}

#[tokio::test]
async fn every_number_with_waivers() {
    let cell = Cell::new("syscalls").allow(Allow::Processes).allow(Allow::Jit);
    snapshot("http-processes-jit.txt", cell).await;
}

/// All numbers of the other two entries, x32 also where it has its own, and both past their ends: a
/// table of one word.
#[tokio::test]
async fn other_entries_are_killed() {
    // Each is one process. A few of them beside each other; an emulated machine tries some of each kind.
    let other = std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some();
    let all: [(u32, u32, &str); 3] =
        [(0x4000_0000, 0x4000_0223, "x32"), (0, 470, "i386"), (0xffff_fff0, 0xffff_fffe, "x32")];
    let some = [
        (0x4000_0000, 0x4000_000c, "x32"),
        (0x4000_0200, 0x4000_0223, "x32"),
        (0xffff_fff0, 0xffff_fffe, "x32"),
        (0, 12, "i386"),
        (119, 121, "i386"),
        (436, 438, "i386"),
    ];
    let ranges: &[_] = if other { &some } else { &all };
    let parts = ranges.iter().flat_map(|&(first, last, entry)| {
        (first..=last).step_by(64).map(move |from| (from, last.min(from.saturating_add(63)), entry))
    });
    let cell = Cell::new("syscalls");
    let tables = parts.map(|(first, last, entry)| {
        let cell = &cell;
        async move {
            let results = table(cell, first, last, entry).await;
            let numbers: Vec<_> = results.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (first..=last).collect::<Vec<_>>(), "{entry}: some were not called");
            let alive = results.into_iter().filter(|(_, result)| result != "killed");
            alive.map(|(number, result)| format!("{entry} {number:#x}: {result}")).collect::<Vec<_>>()
        }
    });
    let alive: Vec<_> = futures_util::stream::iter(tables).buffer_unordered(4).concat().await;
    assert!(alive.is_empty(), "{alive:#?}");
}
