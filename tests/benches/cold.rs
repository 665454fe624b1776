//! Cold start: from asking to the first byte of the answer, when no process is there yet.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{self, Address};
use crate::contestants::workerd;
use crate::context::{Context, Failure};
use crate::report::{Key, Report};

pub(crate) const GROUP: &str = "cold";
pub(crate) const FIRST_BYTE: &str = "first byte µs";
/// The case in which one start has the machine to itself.
pub(crate) const ALONE: &str = "one at a time";

/// Between two tries to connect: what a peer's figure may be too high by, with the timer's slack 0.1 ms.
const PROBE: Duration = Duration::from_micros(50);

/// One way to start a server on `socket`, by the number of the start.
type Make<'a> = dyn Fn(&Path) -> Command + 'a;

/// Starts each contestant in turn, again and again.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let starts = if context.options.quick { 20 } else { 200 };
    let plain = context.binary("bench-hyper")?;
    let fixed = context.static_binary("bench-hyper")?;
    let mut ways: Vec<(&str, u32, Box<Make<'_>>)> = vec![
        ("no sandbox, static hyper", starts, Box::new(|socket| server(&fixed, socket))),
        ("no sandbox, dynamic hyper", starts, Box::new(|socket| server(&plain, socket))),
    ];
    match context.peer("bwrap") {
        Err(error) => report.skip("bwrap", &error.to_string()),
        Ok(bwrap) => {
            let (fixed, plain) = (&fixed, &plain);
            let again = bwrap.clone();
            ways.push(("bwrap, static hyper", starts, Box::new(move |s| sandboxed(&again, fixed, s, false))));
            ways.push(("bwrap, dynamic hyper", starts, Box::new(move |s| sandboxed(&bwrap, plain, s, true))));
        }
    }
    match context.peer("workerd") {
        Err(error) => report.skip("workerd process start", &error.to_string()),
        Ok(program) => {
            let way = move |socket: &Path| {
                let mut command = Command::new(&program);
                command.arg("serve").arg(context.file("workerd.capnp")).arg("config");
                command.arg(format!("--socket-addr=main=unix:{}", socket.display()));
                command
            };
            workerd::config(context, &[("main", "unix:/dev/null/unused".into(), "user")])?;
            ways.push(("workerd process start", starts.min(20), Box::new(way)));
        }
    }
    ways.retain(|(name, ..)| context.takes_part(name));
    for number in 0..starts {
        for (name, times, make) in &ways {
            if number >= *times {
                continue;
            }
            let folder = tempfile::tempdir_in(context.work.path())?;
            let key = Key { group: GROUP, case: ALONE, contestant: name, metric: FIRST_BYTE };
            let socket = folder.path().join("s");
            let taken = start(&mut make(&socket), &socket).map_err(|error| format!("{name}: {error}"))?;
            report.add(key, taken.as_secs_f64() * 1e6);
        }
    }
    Ok(())
}

fn server(program: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(format!("unix:{}", socket.display()));
    command
}

/// bubblewrap with what it has: every namespace, an empty root, no capabilities. (No seccomp, landlock,
/// cgroup or uid of its own: it is let off lighter than a Cloister Worker.)
fn sandboxed(bwrap: &Path, program: &Path, socket: &Path, libraries: bool) -> Command {
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
fn start(command: &mut Command, socket: &Path) -> Result<Duration, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let address = Address::Unix(socket.into());
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
    let answer = client::finish(&mut *stream, begin, "bench.test", "/b/0", None)?;
    drop(child);
    if answer.status == 200 { Ok(answer.first_byte) } else { Err(answer.head.into()) }
}

/// A child that is killed and reaped when dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
