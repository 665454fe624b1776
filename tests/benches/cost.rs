//! What one request costs: CPU time by part of the hop, and system calls, which hardly depend on the
//! machine's mood and so can be compared with a committed baseline.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::contestants::{self, Running, Target};
use crate::context::{Context, Failure};
use crate::instructions;
use crate::load::{self, Cell};
use crate::procfs;
use crate::report::{Key, Report};
use crate::warm;

pub(crate) const GROUP: &str = "cost";
/// CPU time.
const CPU: &str = "CPU µs/req";
/// System calls.
pub(crate) const CALLS: &str = "syscalls/req";
/// Longest that strace may take to attach.
const ATTACH: Duration = Duration::from_secs(10);

/// The case of a cell.
pub(crate) fn case(cell: Cell) -> String {
    cell.name()
}

/// Runs all rounds.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    instructions::run(context, report);
    for round in 0..context.rounds() {
        eprintln!("round {}", round + 1);
        let (running, skipped) = contestants::start_all(context, contestants::WARM);
        for (name, why) in skipped {
            report.skip(&name, &why);
        }
        for contestant in &running {
            for target in &contestant.targets {
                for cell in [warm::MAIN, warm::ALONE] {
                    target.check(cell)?;
                    cpu(context, report, contestant, target, cell)?;
                    // Counts hardly differ between rounds.
                    if round == 0 {
                        calls(context, report, contestant, target, cell)?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn cpu(
    context: &Context,
    report: &mut Report,
    contestant: &Running,
    target: &Target,
    cell: Cell,
) -> Result<(), Failure> {
    let spent = |pids: &[u32]| pids.iter().map(|pid| procfs::cpu_ns(*pid)).sum::<u64>();
    let parts = contestant.parts();
    let before: Vec<u64> = parts.iter().map(|(_, pids)| spent(pids)).collect();
    let load = load::run(context, target, cell, context.seconds(), None)?;
    for ((name, pids), before) in parts.iter().zip(before) {
        let row = format!("{} [{name}]", target.name);
        let key = Key { group: GROUP, case: &case(cell), contestant: &row, metric: CPU };
        report.add(key, spent(pids).saturating_sub(before) as f64 / 1e3 / load.requests);
    }
    Ok(())
}

/// Counts the system calls of every part while the load runs, one part after the other.
fn calls(
    context: &Context,
    report: &mut Report,
    contestant: &Running,
    target: &Target,
    cell: Cell,
) -> Result<(), Failure> {
    for (name, pids) in contestant.parts() {
        let row = format!("{} [{name}]", target.name);
        match counted(context, target, cell, &pids) {
            Err(error) => report.skip(&format!("system calls of {row}"), &error.to_string()),
            Ok((counts, requests)) => {
                let key = Key { group: GROUP, case: &case(cell), contestant: &row, metric: CALLS };
                report.add(key, counts.values().sum::<f64>() / requests);
                let mut by_count: Vec<_> = counts.iter().filter(|(_, n)| **n / requests >= 0.01).collect();
                by_count.sort_by(|a, b| b.1.total_cmp(a.1));
                let list: Vec<String> =
                    by_count.iter().map(|(c, n)| format!("{c} {:.2}", *n / requests)).collect();
                report.note(&format!("{GROUP}: {}: {row}: {}", case(cell), list.join(", ")));
            }
        }
    }
    Ok(())
}

/// System calls by name, and the requests they were made for.
fn counted(
    context: &Context,
    target: &Target,
    cell: Cell,
    pids: &[u32],
) -> Result<(BTreeMap<String, f64>, f64), Failure> {
    let table = context.file("strace");
    drop(std::fs::remove_file(&table));
    let mut strace = Command::new(context.peer("strace")?);
    strace.args(["-f", "-c", "-o"]).arg(&table);
    for pid in pids {
        strace.arg("-p").arg(pid.to_string());
    }
    let mut strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let attached = pids.iter().try_for_each(|pid| procfs::traced(*pid, ATTACH));
    let load = attached.and_then(|()| load::run(context, target, cell, context.seconds(), None));
    let pid = nix::unistd::Pid::from_raw(i32::try_from(strace.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)?;
    strace.wait()?;
    let load = load?;
    if load.errors > 0 {
        return Err(format!("{} requests failed under strace", load.errors).into());
    }
    let text = std::fs::read_to_string(&table)?;
    Ok((parse(&text), load.requests))
}

/// Reads strace's table: `% time, seconds, usecs/call, calls, [errors], syscall`.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(calls), Some(name)) = (words.get(3), words.last()) else { continue };
        if *name == "total" || *name == "syscall" {
            continue;
        }
        if let Ok(calls) = calls.parse() {
            counts.insert((*name).to_owned(), calls);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    #[test]
    fn straces_table() {
        let text = "% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000012           1        12         2 read
 40.00    0.000008           0        30           write
------ ----------- ----------- --------- --------- ----------------
100.00    0.000020           0        42         2 total
";
        let counts = super::parse(text);
        assert_eq!(counts.len(), 2);
        assert_eq!((counts["read"], counts["write"]), (12.0, 30.0));
    }
}
