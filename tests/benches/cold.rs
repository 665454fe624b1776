//! Cold start: from asking to the first byte of the answer, when no process is there yet.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{self, Address, Request};
use crate::contestants::workerd;
use crate::context::{Context, Failure};
use crate::platform::{NAMESPACE, Platform, Settings, Upload};
use crate::report::{Key, Report};

pub(crate) const GROUP: &str = "cold";
pub(crate) const FIRST_BYTE: &str = "first byte µs";
/// The case in which one start has the machine to itself.
pub(crate) const ALONE: &str = "one at a time";
/// The way that the goal speaks of.
pub(crate) const BLANK_STATIC_SDK: &str = "cloister, waiting blank, static SDK Worker";
/// Starts of the burst.
const BURST: usize = 100;
/// Between two tries to connect: what a peer's figure may be too high by, with the timer's slack 0.1 ms.
const PROBE: Duration = Duration::from_micros(50);

/// Between two starts: what the one before leaves behind (a network namespace to take down, a blank to make
/// again) is not the next one's time. Many at once is the case in which it is.
const SETTLE: Duration = Duration::from_millis(25);

/// A way to start: gives the time to the first byte. Called with the number of the start, from
/// several threads in a burst.
type Way<'a> = Box<dyn Fn(usize) -> Result<Duration, Failure> + Sync + 'a>;

/// A contestant.
struct Contestant<'a> {
    name: String,
    /// Most starts of one run.
    most: usize,
    start: Way<'a>,
}

/// Starts each contestant in turn, again and again; then each in a burst.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let starts = if context.options.quick { 30 } else { 200 };
    let burst = if context.options.quick { 30 } else { BURST };
    let mut contestants = peers(context, report)?;
    for blanks in [8, 0] {
        match ours(context, blanks, starts + burst) {
            Ok(made) => contestants.extend(made),
            Err(error) => report.skip(&format!("cloister, {blanks} blanks"), &error.to_string()),
        }
    }
    contestants.retain(|c| context.takes_part(&c.name));
    for number in 0..starts {
        for contestant in contestants.iter().filter(|c| number < c.most) {
            let key = Key { group: GROUP, case: ALONE, contestant: &contestant.name, metric: FIRST_BYTE };
            std::thread::sleep(SETTLE);
            let taken =
                (contestant.start)(number).map_err(|error| format!("{}: {error}", contestant.name))?;
            report.add(key, taken.as_secs_f64() * 1e6);
        }
    }
    let case = format!("{burst} at once");
    for contestant in contestants.iter().filter(|c| c.most >= starts) {
        let key = Key { group: GROUP, case: &case, contestant: &contestant.name, metric: FIRST_BYTE };
        match at_once(&contestant.start, starts, burst) {
            Err(error) => report.skip(&format!("{}, {case}", contestant.name), &error.to_string()),
            Ok(taken) => taken.iter().for_each(|taken| report.add(key, taken.as_secs_f64() * 1e6)),
        }
    }
    Ok(())
}

/// `count` starts by as many threads that go together.
fn at_once(start: &Way<'_>, first: usize, count: usize) -> Result<Vec<Duration>, Failure> {
    let (gate, taken) = (Barrier::new(count), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for number in first..first + count {
            let (gate, taken) = (&gate, &taken);
            scope.spawn(move || {
                gate.wait();
                let outcome = start(number);
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
            });
        }
    });
    taken.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// Cloister with so many blanks: a Worker of its own for each start of each kind.
fn ours(context: &Context, blanks: u32, starts: usize) -> Result<Vec<Contestant<'_>>, Failure> {
    let name = format!("cold-{blanks}");
    let platform = Platform::start(context, &name, &Settings { blanks, egress: None })?;
    let kinds = [
        ("static SDK Worker", "ipc", context.static_binary("bench-worker")?),
        ("dynamic SDK Worker", "ipc", context.binary("bench-worker")?),
        ("static http Worker", "http", context.static_binary("bench-hyper")?),
        ("dynamic http Worker", "http", context.binary("bench-hyper")?),
    ];
    let platform = std::sync::Arc::new(platform);
    let mut contestants = Vec::new();
    for (kind, (label, contract, path)) in kinds.into_iter().enumerate() {
        let program = std::fs::read(path)?;
        eprintln!("deploying {starts} times: {label}, {blanks} blanks");
        for number in 0..starts {
            let name = format!("k{kind}-{number}");
            let namespace = Some(NAMESPACE);
            platform.deploy(&Upload {
                namespace,
                name: &name,
                program: &program,
                contract,
                metadata: json!({}),
            })?;
        }
        let having = if blanks > 0 { "waiting blank" } else { "no blank" };
        let platform = platform.clone();
        contestants.push(Contestant {
            name: format!("cloister, {having}, {label}"),
            most: usize::MAX,
            start: Box::new(move |number| Ok(platform.ask(&format!("k{kind}-{number}"), "/b/0")?.first_byte)),
        });
    }
    Ok(contestants)
}

fn peers<'a>(context: &'a Context, report: &mut Report) -> Result<Vec<Contestant<'a>>, Failure> {
    let plain = context.binary("bench-hyper")?;
    let fixed = context.static_binary("bench-hyper")?;
    let mut contestants = Vec::new();
    for (label, program) in [("static", fixed.clone()), ("dynamic", plain.clone())] {
        contestants.push(Contestant {
            name: format!("no sandbox, {label} hyper"),
            most: usize::MAX,
            start: Box::new(move |_| process(context, |socket| server(&program, socket))),
        });
    }
    match context.peer("bwrap") {
        Err(error) => report.skip("bwrap", &error.to_string()),
        Ok(bwrap) => {
            for (label, program, libraries) in [("static", fixed, false), ("dynamic", plain, true)] {
                let bwrap = bwrap.clone();
                contestants.push(Contestant {
                    name: format!("bwrap, {label} hyper"),
                    most: usize::MAX,
                    start: Box::new(move |_| {
                        process(context, |socket| sandboxed(&bwrap, &program, socket, libraries))
                    }),
                });
            }
        }
    }
    match context.peer("workerd") {
        Err(error) => report.skip("workerd process start", &error.to_string()),
        Ok(program) => {
            workerd::config(context, &[("main", "unix:/nonexistent".into(), "user")])?;
            contestants.push(Contestant {
                name: "workerd process start".into(),
                most: 20,
                start: Box::new(move |_| {
                    process(context, |socket| {
                        let mut command = Command::new(&program);
                        command.arg("serve").arg(context.file("workerd.capnp")).arg("config");
                        command.arg(format!("--socket-addr=main=unix:{}", socket.display()));
                        command
                    })
                }),
            });
        }
    }
    Ok(contestants)
}

/// The server on a Unix socket, without any sandbox.
pub(crate) fn server(program: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("unix:{}", socket.display()));
    command
}

/// bubblewrap with what it has: every namespace, an empty root, no capabilities. (No seccomp, landlock,
/// cgroup or uid of its own: it is let off lighter than a Cloister Worker.)
pub(crate) fn sandboxed(bwrap: &Path, program: &Path, socket: &Path, libraries: bool) -> Command {
    let mut command = Command::new(bwrap);
    command.args([
        "--unshare-all",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
        "--tmpfs",
        "/tmp",
        "--dev",
        "/dev",
    ]);
    if libraries {
        for folder in ["/lib", "/lib64", "/usr/lib"] {
            command.args(["--ro-bind-try", folder, folder]);
        }
    }
    let folder = socket.parent().unwrap_or(socket);
    command.arg("--ro-bind").arg(program).arg("/worker").arg("--bind").arg(folder).arg("/s");
    command.args(["/worker", "unix:/s/s"]);
    command
}

/// From the spawn to the first byte.
fn process(context: &Context, make: impl Fn(&Path) -> Command) -> Result<Duration, Failure> {
    let folder = tempfile::tempdir_in(context.work.path())?;
    let socket = folder.path().join("s");
    let mut command = make(&socket);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let address = Address::Unix(socket);
    let begin = Instant::now();
    let child = Killed(command.spawn()?);
    let mut stream = loop {
        if let Ok(stream) = address.connect() {
            break stream;
        }
        if begin.elapsed() > Duration::from_secs(20) {
            return Err("does not listen after 20 s".into());
        }
        std::thread::sleep(PROBE);
    };
    let answer = client::finish(&mut *stream, begin, &Request::new("bench.test", "/b/0", None))?;
    drop(child);
    if answer.status == 200 { Ok(answer.first_byte) } else { Err(answer.head.into()) }
}

/// A child that is killed and reaped when dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
