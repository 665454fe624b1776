//! Who is measured. A contestant is a set of processes that together offer one or more targets.

pub(crate) mod cloister;
mod haproxy;
mod hyper;
pub(crate) mod nginx;
pub(crate) mod workerd;

use crate::client::{self, Address};
use crate::context::{Context, Failure};
use crate::load::Cell;
use crate::platform::Platform;
use crate::process::Process;
use crate::procfs;

/// Something to send requests to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: Address,
    /// `Host` of the requests.
    pub(crate) host: String,
}

impl Target {
    pub(crate) fn new(name: &str, port: u16) -> Self {
        Self { name: name.into(), address: Address::local(port), host: "bench.test".into() }
    }

    /// Asks once and compares the answer: who answers wrongly is not measured.
    pub(crate) fn check(&self, cell: Cell) -> Result<(), Failure> {
        let body = vec![b'x'; cell.up];
        let post = (cell.up > 0).then_some(body.as_slice());
        let answer = client::ask(&self.address, &self.host, &format!("/b/{}", cell.down), post)?;
        if answer.status != 200 || answer.body.len() != cell.down {
            let what = String::from_utf8_lossy(answer.body.get(..200).unwrap_or(&answer.body)).into_owned();
            let got = answer.body.len();
            let head = answer.head;
            return Err(format!(
                "{}: wanted 200 and {} bytes, got {got} bytes:\n{head}\n{what}",
                self.name, cell.down
            )
            .into());
        }
        Ok(())
    }
}

/// A started contestant. Dropping it ends its processes, last started first.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) targets: Vec<Target>,
    processes: Vec<Process>,
    platform: Option<Platform>,
}

impl Running {
    pub(crate) fn new(targets: Vec<Target>, processes: Vec<Process>) -> Self {
        Self { targets, processes, platform: None }
    }

    /// Targets of a platform.
    pub(crate) fn cloister(targets: Vec<Target>, platform: Platform) -> Self {
        Self { targets, processes: Vec::new(), platform: Some(platform) }
    }

    /// Who works for it: a name, and the pids of that part now.
    pub(crate) fn parts(&self) -> Vec<(String, Vec<u32>)> {
        if let Some(platform) = &self.platform {
            return platform.parts();
        }
        let part = |p: &Process| {
            let mut pids = procfs::descendants(p.pid());
            pids.push(p.pid());
            (p.name().to_owned(), pids)
        };
        self.processes.iter().map(part).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

/// How a contestant is started.
pub(crate) struct Contestant {
    /// Its targets' names.
    pub(crate) targets: &'static [&'static str],
    pub(crate) start: fn(&Context) -> Result<Running, Failure>,
}

/// All contestants of the warm table, in the order of its rows.
pub(crate) const WARM: &[Contestant] = &[
    Contestant { targets: &[hyper::BARE], start: hyper::start },
    Contestant { targets: &[nginx::HOP], start: nginx::start },
    Contestant { targets: &[haproxy::HOP], start: haproxy::start },
    Contestant { targets: &[workerd::HELLO, workerd::DISPATCH], start: workerd::start },
    Contestant {
        targets: &[cloister::ROUTE_IPC, cloister::ROUTE_HTTP, cloister::FETCH, cloister::TAIL],
        start: cloister::start,
    },
];

/// The row that ratios are taken to: the machine's limit.
pub(crate) const BARE: &str = hyper::BARE;
/// The row that ratios are taken to: the usual hop.
pub(crate) const HOP: &str = nginx::HOP;

/// The bare hyper server alone.
pub(crate) fn bare(context: &Context) -> Result<Running, Failure> {
    hyper::start(context)
}

/// Starts all that take part; who can't is named with the reason.
pub(crate) fn start_all(context: &Context, all: &[Contestant]) -> (Vec<Running>, Vec<(String, String)>) {
    let (mut running, mut skipped) = (Vec::new(), Vec::new());
    for contestant in all {
        if !contestant.targets.iter().any(|name| context.takes_part(name)) {
            continue;
        }
        match (contestant.start)(context) {
            Ok(mut started) => {
                started.targets.retain(|target| context.takes_part(&target.name));
                running.push(started);
            }
            Err(error) => {
                eprintln!("SKIPPED: {}: {error}", contestant.targets.join(", "));
                skipped.extend(contestant.targets.iter().map(|name| ((*name).into(), error.to_string())));
            }
        }
    }
    (running, skipped)
}
