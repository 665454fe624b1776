//! The machine and the versions, read at the start of the run: a figure without them means nothing.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::context::Context;

/// Where a run took place.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cpus: usize,
    memory_mib: u64,
    kernel: String,
    system: String,
    virtualised: String,
    /// `/proc/loadavg` before the first contestant: above 0.3 or so, somebody else was working too.
    load_before: String,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let memory =
            after(&meminfo, "MemTotal", ':').split_whitespace().next().and_then(|n| n.parse::<u64>().ok());
        Self {
            cpu: after(&cpuinfo, "model name", ':'),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory.unwrap_or_default() / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            system: after(&release, "PRETTY_NAME", '=').trim_matches('"').into(),
            virtualised: if after(&cpuinfo, "flags", ':').split(' ').any(|f| f == "hypervisor") {
                "yes".into()
            } else {
                "no".into()
            },
            load_before: load.split(' ').take(3).collect::<Vec<_>>().join(" "),
        }
    }

    /// One line.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} x {}, {} MiB, Linux {}, {}, virtual: {}, load before: {}",
            self.cpus,
            self.cpu,
            self.memory_mib,
            self.kernel,
            self.system,
            self.virtualised,
            self.load_before
        )
    }
}

/// The value behind `key` in lines of `key SEPARATOR value`.
fn after(text: &str, key: &str, separator: char) -> String {
    let lines = text.lines().filter_map(|line| line.split_once(separator));
    lines.filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim().to_owned()).next().unwrap_or_default()
}

/// Versions of all that takes part, as each tells it itself; what is not there is left out.
pub(crate) fn versions(context: &Context) -> BTreeMap<String, String> {
    let programs: [(&str, &[&str]); 9] = [
        ("nginx", &["-v"]),
        ("haproxy", &["-v"]),
        ("workerd", &["--version"]),
        ("bwrap", &["--version"]),
        ("squid", &["-v"]),
        ("tinyproxy", &["-v"]),
        ("wrk", &["-v"]),
        ("strace", &["--version"]),
        ("valgrind", &["--version"]),
    ];
    let mut versions = BTreeMap::new();
    for (program, arguments) in programs {
        let Ok(path) = context.peer(program) else { continue };
        if let Some(line) = first_line(Command::new(path).args(arguments)) {
            versions.insert(program.into(), line);
        }
    }
    let mut rustc = Command::new("rustc");
    versions.extend(first_line(rustc.arg("--version")).map(|line| ("rustc".into(), line)));
    let mut git = Command::new("git");
    let described = first_line(git.args(["describe", "--always", "--dirty", "--abbrev=12"]));
    versions.extend(described.map(|line| ("cloister".into(), line)));
    versions
}

fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
