//! The warm table: live contestants under closed-loop load, interleaved cell by cell.

use crate::contestants::{self, Target};
use crate::context::{Context, Failure};
use crate::load::{self, Cell};
use crate::report::{Key, Report};

pub(crate) const GROUP: &str = "warm";
pub(crate) const RATE: &str = "req/s";
pub(crate) const MEDIAN: &str = "p50 µs";
const TAIL: &str = "p99 µs";

/// The cell that the goals speak of.
pub(crate) const MAIN: Cell = Cell { connections: 32, down: 0, up: 0 };
/// The cell of the latency goal.
pub(crate) const ALONE: Cell = Cell { connections: 1, down: 0, up: 0 };

/// The cells of a run.
fn cells(quick: bool) -> Vec<Cell> {
    if quick {
        return vec![MAIN, ALONE, Cell { connections: 32, down: 64 << 10, up: 0 }];
    }
    let mut cells = Vec::new();
    for connections in [32, 1, 256] {
        cells.push(Cell { connections, down: 0, up: 0 });
        for bytes in [1 << 10, 64 << 10, 1 << 20] {
            cells.push(Cell { connections, down: bytes, up: 0 });
            cells.push(Cell { connections, down: 0, up: bytes });
        }
    }
    cells
}

/// Runs all rounds.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    for round in 0..context.rounds() {
        // Started anew in each round: how a process came to lie in memory is part of the noise.
        let (running, skipped) = contestants::start_all(context, contestants::WARM);
        for (name, why) in skipped {
            report.skip(&name, &why);
        }
        let mut targets: Vec<&Target> = running.iter().flat_map(|r| &r.targets).collect();
        if targets.is_empty() {
            return Err("no contestant of the warm table could be started".into());
        }
        for cell in cells(context.options.quick) {
            eprintln!("round {}: {}", round + 1, cell.name());
            for target in &targets {
                one(context, report, target, cell)?;
            }
            targets.rotate_left(1);
        }
    }
    report.compare(GROUP, RATE, &[contestants::BARE, contestants::HOP]);
    report.compare(GROUP, MEDIAN, &[contestants::HOP]);
    Ok(())
}

fn one(context: &Context, report: &mut Report, target: &Target, cell: Cell) -> Result<(), Failure> {
    let case = cell.name();
    let key = |metric| Key { group: GROUP, case: &case, contestant: &target.name, metric };
    let checked = target.check(cell).and_then(|()| load::run(context, target, cell, context.seconds(), None));
    let load = match checked {
        Ok(load) if load.errors == 0 => load,
        result => {
            let why =
                result.map_or_else(|e| e.to_string(), |load| format!("{} failed requests", load.errors));
            report.skip(&format!("{}, {case}", target.name), &why);
            // Keeps the rounds of this contestant in step with the others'.
            report.add(key(RATE), f64::NAN);
            return Ok(());
        }
    };
    report.add(key(RATE), load.per_second());
    report.add(key(MEDIAN), load.p50_us);
    report.add(key(TAIL), load.p99_us);
    Ok(())
}
