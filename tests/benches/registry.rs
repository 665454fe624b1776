//! Many Workers deployed, few of them live: what their number does to a dispatch, to a start of the
//! supervisor, to its memory and to queries.

use std::time::Instant;

use serde_json::{Value, json};

use crate::contestants::Target;
use crate::context::{Context, Failure};
use crate::density::parallel;
use crate::load::{self, Cell};
use crate::platform::{NAMESPACE, Platform, Settings, Upload};
use crate::procfs;
use crate::report::{Key, Report};
use crate::warm;

pub(crate) const GROUP: &str = "registry";
pub(crate) const NAME: &str = "cloister";
pub(crate) const RATE: &str = "req/s, 32 connections";
/// Share of the Workers that has the tag asked for.
const TAGGED: usize = 1_000;
/// Live Workers in the Zipf-like walk.
const WALKED: usize = 1_000;

/// The case of a count.
pub(crate) fn case(count: usize) -> String {
    format!("{count} deployed")
}

/// The counts of a run.
pub(crate) fn counts(context: &Context) -> Vec<usize> {
    match (context.options.deployed, context.options.quick) {
        (Some(count), _) => vec![10, count],
        (None, true) => vec![10, 200],
        (None, false) => vec![10, 1_000, 100_000],
    }
}

/// Deploys count after count into one platform and measures after each.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    if !context.takes_part(NAME) {
        return Ok(());
    }
    if let Err(error) = platform(context, report) {
        report.skip("registry", &error.to_string());
    }
    Ok(())
}

fn platform(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let mut platform = Platform::start(context, "registry", &Settings { blanks: 4, egress: None })?;
    let program = std::fs::read(context.static_binary("bench-worker")?)?;
    let mut deployed = 0;
    for count in counts(context) {
        eprintln!("deploying up to {count}");
        let start = Instant::now();
        parallel(deployed..count, |number| {
            let tag = if number % TAGGED == 0 { "rare" } else { "common" };
            let name = format!("w{number}");
            let upload = Upload {
                namespace: Some(NAMESPACE),
                name: &name,
                program: &program,
                contract: "ipc",
                metadata: json!({ "tags": [tag] }),
            };
            platform.deploy(&upload).map(drop)
        })?;
        let case = case(count);
        let key = |metric| Key { group: GROUP, case: &case, contestant: NAME, metric };
        report.add(key("deploys/s"), (count - deployed) as f64 / start.elapsed().as_secs_f64());
        deployed = count;
        let start = Instant::now();
        platform.restart(context)?;
        report.add(key("restart ms"), start.elapsed().as_secs_f64() * 1e3);
        report.add(key("supervisor PSS MiB"), pss_mib(&platform));
        let scripts = format!("/dispatch/namespaces/{NAMESPACE}/scripts");
        report.add(key("list ms"), timed(&platform, &scripts)?);
        report.add(key("tag query ms"), timed(&platform, &format!("{scripts}?tags=rare:yes"))?);
        let host = format!("w{}.user.test", count / 2);
        let target = Target { name: NAME.into(), address: platform.front.clone(), host };
        target.check(warm::MAIN)?;
        let load = load::run(context, &target, warm::MAIN, context.seconds(), None)?;
        report.add(key(RATE), load.per_second());
        let walked = walk(context, &platform, count)?;
        report.add(key("req/s over many Workers, Zipf"), walked);
    }
    Ok(())
}

fn pss_mib(platform: &Platform) -> f64 {
    procfs::pss_kib(platform.supervisor()).unwrap_or_default() as f64 / 1024.0
}

fn timed(platform: &Platform, path: &str) -> Result<f64, Failure> {
    let start = Instant::now();
    platform.api("GET", path, &Value::Null)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// Requests over many live Workers: the k-th of them about 1/k as often as the first.
fn walk(context: &Context, platform: &Platform, count: usize) -> Result<f64, Failure> {
    let live = count.min(if context.options.quick { 100 } else { WALKED });
    parallel(0..live, |number| platform.ask(&format!("w{number}"), "/b/0").map(drop))?;
    let mut hosts = Vec::new();
    for k in 1..=live {
        let times = (live / k).max(1);
        hosts.extend(std::iter::repeat_n(k - 1, times));
    }
    // A fixed shuffle, so that every run asks in the same order: multiply by an odd number modulo the length.
    let length = hosts.len();
    let step = (1..).map(|n| length / 3 + n).find(|step| gcd(*step, length) == 1).unwrap_or(1);
    let order = (0..length).map(|i| hosts.get(i * step % length).copied().unwrap_or_default());
    let text: String = order.map(|number| format!("w{number}.user.test\n")).collect();
    let file = context.file("hosts");
    std::fs::write(&file, text)?;
    let target = Target { name: NAME.into(), address: platform.front.clone(), host: "w0.user.test".into() };
    let cell = Cell { connections: 32, down: 0, up: 0 };
    let load = load::run(context, &target, cell, context.seconds(), Some(&file))?;
    if load.errors > 0 {
        return Err(format!("{} failed requests over {live} Workers", load.errors).into());
    }
    Ok(load.per_second())
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
