//! Load by `wrk`: one thread, closed loop.

use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::contestants::Target;
use crate::context::{Context, Failure};

/// The script given to wrk.
const SCRIPT: &str = include_str!("load.lua");

/// One cell: what is asked and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) connections: u32,
    /// Bytes of the answer's body.
    pub(crate) down: usize,
    /// Bytes of the request's body; 0 is a GET.
    pub(crate) up: usize,
}

impl Cell {
    /// The cell's name in the table.
    pub(crate) fn name(&self) -> String {
        let what =
            if self.up > 0 { format!("POST {}", size(self.up)) } else { format!("GET {}", size(self.down)) };
        format!("{what}, {} connections", self.connections)
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0 => "0".into(),
        n if n >= 1 << 20 => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

/// What wrk counted.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Load {
    pub(crate) requests: f64,
    pub(crate) duration_us: f64,
    pub(crate) errors: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

impl Load {
    /// Answers a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.requests / self.duration_us * 1e6
    }
}

/// Runs one cell against one target. `hosts` is a file of host names to walk instead of the target's.
pub(crate) fn run(
    context: &Context,
    target: &Target,
    cell: Cell,
    seconds: u32,
    hosts: Option<&Path>,
) -> Result<Load, Failure> {
    let script = context.file("load.lua");
    std::fs::write(&script, SCRIPT)?;
    let url = format!("http://{}/b/{}", target.address, cell.down);
    let mut wrk = Command::new(context.peer("wrk")?);
    wrk.args(["-t1", "--timeout", "30s", &format!("-c{}", cell.connections), &format!("-d{seconds}s")]);
    wrk.arg("-s").arg(&script).arg("-H").arg(format!("Host: {}", target.host)).arg(url);
    wrk.env("BENCH_BODY", cell.up.to_string());
    if let Some(hosts) = hosts {
        wrk.env("BENCH_HOSTS", hosts);
    }
    let output = wrk.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(line) = text.lines().find_map(|line| line.strip_prefix("BENCH ")) else {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("wrk on {}: {}: {}{}", target.name, output.status, text, error).into());
    };
    Ok(serde_json::from_str(line)?)
}
