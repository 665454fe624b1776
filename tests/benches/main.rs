//! `cloister-bench`: Cloister and its peers, measured side by side in one run on one machine.
//!
//! See docs/BENCHMARKS.md for how to run it and how to read what it prints.

#![forbid(unsafe_code)]

mod client;
mod cold;
mod contestants;
mod context;
mod cost;
mod egress;
mod load;
mod machine;
mod process;
mod procfs;
mod report;
mod stats;
mod warm;

use clap::Parser;

use context::{Context, Failure, Group, Options};

fn main() -> Result<(), Failure> {
    let context = Context::new(Options::parse())?;
    let mut report = report::Report::new(&context);
    for group in context.groups() {
        eprintln!("== {}", group.name());
        match group {
            Group::Warm => warm::run(&context, &mut report)?,
            Group::Egress => egress::run(&context, &mut report)?,
            Group::Cost => cost::run(&context, &mut report)?,
            Group::Cold => cold::run(&context, &mut report)?,
        }
    }
    report.print();
    report.save(&context.options.json)?;
    eprintln!("written: {}", context.options.json.display());
    Ok(())
}
