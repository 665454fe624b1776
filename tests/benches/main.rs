//! `cloister-bench`: Cloister and its peers, measured side by side in one run on one machine.
//!
//! See docs/BENCHMARKS.md for how to run it and how to read what it prints.

#![forbid(unsafe_code)]

mod baseline;
mod client;
mod cold;
mod contestants;
mod context;
mod cost;
mod density;
mod egress;
mod goals;
mod instructions;
mod isolation;
mod load;
mod machine;
mod platform;
mod process;
mod procfs;
mod registry;
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
            Group::Density => density::run(&context, &mut report)?,
            Group::Registry => registry::run(&context, &mut report)?,
            Group::Isolation => isolation::run(&context, &mut report)?,
            Group::Cost => cost::run(&context, &mut report)?,
            Group::Cold => cold::run(&context, &mut report)?,
        }
    }
    goals::judge(&mut report);
    report.print();
    report.save(&context.options.json)?;
    eprintln!("written: {}", context.options.json.display());
    if let Some(path) = &context.options.write {
        baseline::write(&report, path)?;
    }
    if let Some(path) = &context.options.check {
        baseline::check(&report, path)?;
    }
    Ok(())
}
