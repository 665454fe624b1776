//! Instructions of one request, counted by callgrind: of the bare server, and of the supervisor's side of a hop.
//! They include what a batch shares, so the load is always the same.

use std::process::Command;
use std::time::Duration;

use crate::client::{self, Address};
use crate::contestants::Target;
use crate::context::{Context, Failure};
use crate::cost;
use crate::load::{self, Cell};
use crate::process::{Process, free_port};
use crate::report::{Key, Report};

/// Instructions in user space.
pub(crate) const INSTRUCTIONS: &str = "instructions/req";
/// The load under which they are counted.
pub(crate) const LOAD: Cell = Cell { connections: 8, down: 0, up: 0 };
/// The part that the baseline watches.
pub(crate) const HOP: &str = "cloister, one hop [supervisor's side]";
/// A start under callgrind.
const START: Duration = Duration::from_secs(60);

/// Counts both.
pub(crate) fn run(context: &Context, report: &mut Report) {
    let bare = |port: u16| -> Result<Vec<String>, Failure> {
        Ok(vec![text(context.binary("bench-hyper")?), format!("tcp:127.0.0.1:{port}")])
    };
    let hop = |port: u16| -> Result<Vec<String>, Failure> {
        let worker = text(context.binary("bench-worker")?);
        Ok(vec![text(context.binary("cloister-bench-hop")?), port.to_string(), worker])
    };
    type Make<'a> = &'a dyn Fn(u16) -> Result<Vec<String>, Failure>;
    let parts: [(&str, Make<'_>); 2] = [("bare hyper [hyper]", &bare), (HOP, &hop)];
    for (name, make) in parts {
        if !context.takes_part(name) {
            continue;
        }
        let case = LOAD.name();
        let key = Key { group: cost::GROUP, case: &case, contestant: name, metric: INSTRUCTIONS };
        match free_port().and_then(|port| counted(context, port, &make(port)?)) {
            Ok(count) => report.add(key, count),
            Err(error) => report.skip(&format!("instructions of {name}"), &error.to_string()),
        }
    }
}

fn text(path: std::path::PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

fn counted(context: &Context, port: u16, arguments: &[String]) -> Result<f64, Failure> {
    let out = context.file("callgrind.out");
    drop(std::fs::remove_file(&out));
    let mut command = Command::new(context.peer("valgrind")?);
    command.args(["--tool=callgrind", "--trace-children=no", "--instr-atstart=no"]);
    command.arg(format!("--callgrind-out-file={}", out.display())).args(arguments);
    let mut process = Process::start(context, "callgrind", &command)?;
    let target =
        Target { name: "callgrind".into(), address: Address::local(port), host: "bench.test".into() };
    process.ready(&target.address, START)?;
    client::ask(&target.address, &target.host, "/b/0", None)?;
    let control = |switch: &str| -> Result<(), Failure> {
        let mut control = Command::new(context.peer("callgrind_control")?);
        let output = control.args(["-i", switch, &process.pid().to_string()]).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("callgrind_control -i {switch}: {}", String::from_utf8_lossy(&output.stderr)).into())
    };
    // Once without counting: first-time costs are no request's.
    load::run(context, &target, LOAD, 1, None)?;
    control("on")?;
    let load = load::run(context, &target, LOAD, context.seconds(), None)?;
    control("off")?;
    drop(process);
    let written = std::fs::read_to_string(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let total =
        written.lines().find_map(|line| line.strip_prefix("totals:")).and_then(|n| n.trim().parse().ok());
    let total: f64 = total.ok_or("callgrind wrote no totals")?;
    Ok(total / load.requests)
}
