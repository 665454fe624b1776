//! A quiet Worker beside a bad neighbour: what the neighbour does to its latency, with limits on.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::client;
use crate::contestants::{self, Target};
use crate::context::{Context, Failure};
use crate::load;
use crate::platform::{NAMESPACE, Platform, Settings, Upload};
use crate::report::{Key, Report};
use crate::warm;

pub(crate) const GROUP: &str = "isolation";
pub(crate) const CASE: &str = "a quiet Worker at 1 connection";
pub(crate) const TAIL: &str = "p99 µs";
pub(crate) const QUIET: &str = "no neighbour";
/// Requests that the neighbour has under way all the time.
const PRESSURE: usize = 4;

/// Runs all rounds.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    if !context.takes_part("cloister") {
        return Ok(());
    }
    if let Err(error) = platform(context, report) {
        report.skip("isolation", &error.to_string());
    }
    Ok(())
}

fn platform(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let origin = contestants::bare(context)?;
    let Some(target) = origin.targets.first() else { return Err("no origin".into()) };
    let policy = "version = 1\nmode = \"enforce\"\ndefault = \"deny\"\n\
        [[rule]]\nname = \"origin\"\nhosts = [\"127.0.0.1\"]\nnetworks = [\"127.0.0.0/8\"]\n\
        schemes = [\"http\"]\naction = \"allow\"\n";
    let settings = Settings { blanks: 4, egress: Some(policy.into()) };
    let platform = Platform::start(context, "isolation", &settings)?;
    let program = std::fs::read(context.static_binary("bench-worker")?)?;
    for name in ["quiet", "bad"] {
        platform.deploy(&Upload {
            namespace: Some(NAMESPACE),
            name,
            program: &program,
            contract: "ipc",
            metadata: json!({}),
        })?;
    }
    let flood = format!("/fetch/50/{}", target.address);
    let neighbours: [(&str, Option<&str>); 6] = [
        (QUIET, None),
        ("beside one that is as busy", Some("/b/0")),
        ("beside one that spins", Some("/spin/30")),
        ("beside one that allocates", Some("/allocate/64")),
        ("beside one that floods its log", Some("/log/1000")),
        ("beside one that floods egress", Some(&flood)),
    ];
    let quiet =
        Target { name: "quiet".into(), address: platform.front.clone(), host: "quiet.user.test".into() };
    for round in 0..context.rounds() {
        eprintln!("round {}", round + 1);
        for (name, path) in neighbours {
            quiet.check(warm::ALONE)?;
            let stop = AtomicBool::new(false);
            let load = std::thread::scope(|scope| {
                for _ in 0..path.map_or(0, |_| PRESSURE) {
                    scope.spawn(|| press(&platform, path.unwrap_or_default(), &stop));
                }
                let load = load::run(context, &quiet, warm::ALONE, context.seconds(), None);
                stop.store(true, Ordering::Relaxed);
                load
            })?;
            let key = |metric| Key { group: GROUP, case: CASE, contestant: name, metric };
            report.add(key("p50 µs"), load.p50_us);
            report.add(key(TAIL), load.p99_us);
            report.add(key("failed requests"), load.errors as f64);
        }
    }
    report.compare(GROUP, TAIL, &[QUIET]);
    Ok(())
}

/// Asks the neighbour again and again; that it is refused or killed for it is part of the game.
fn press(platform: &Platform, path: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        drop(client::ask(&platform.front, "bad.user.test", path, None));
    }
}
