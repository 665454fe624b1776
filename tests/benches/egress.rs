//! The egress filter beside forward proxies: the same load program asks the same origin through each.

use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::client::{self, Address};
use crate::contestants::{self, Running, Target};
use crate::context::{Context, Failure};
use crate::platform::{NAMESPACE, Platform, Settings, Upload};
use crate::process::{Process, free_port};
use crate::report::{Key, Report};

pub(crate) const GROUP: &str = "egress";
pub(crate) const RATE: &str = "req/s";
pub(crate) const SQUID: &str = "squid";
pub(crate) const TINYPROXY: &str = "tinyproxy";
pub(crate) const NGINX: &str = "nginx to a fixed origin";
pub(crate) const CLOISTER: &str = "cloister, from an http Worker";
const START: Duration = Duration::from_secs(20);

/// What the load program tells.
#[derive(Debug, Deserialize)]
struct Outcome {
    requests: f64,
    errors: u64,
    duration_us: f64,
    p50_us: f64,
    p99_us: f64,
    last_error: String,
}

/// The connections of a case.
pub(crate) fn case(connections: u32) -> String {
    format!("GET 0 through the proxy, {connections} connections")
}

/// Runs all rounds.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let origin = contestants::bare(context)?;
    let Some(Address::Tcp(to)) = origin.targets.first().map(|t| t.address.clone()) else {
        return Err("the origin listens on no TCP address".into());
    };
    type Start = fn(&Context, std::net::SocketAddr) -> Result<Running, Failure>;
    let ways: [(&str, Start); 5] =
        [("no proxy", direct), (NGINX, nginx), (SQUID, squid), (TINYPROXY, tinyproxy), (CLOISTER, cloister)];
    let mut running = Vec::new();
    for (name, start) in ways {
        if !context.takes_part(name) {
            continue;
        }
        match start(context, to) {
            Ok(started) => running.push(started),
            Err(error) => report.skip(name, &error.to_string()),
        }
    }
    let cases: &[u32] = if context.options.quick { &[32] } else { &[1, 32, 256] };
    let mut targets: Vec<&Target> = running.iter().flat_map(|r| &r.targets).collect();
    if targets.is_empty() {
        return Ok(());
    }
    for round in 0..context.rounds() {
        for connections in cases {
            eprintln!("round {}: {}", round + 1, case(*connections));
            for target in &targets {
                one(context, report, target, *connections, to)?;
            }
            targets.rotate_left(1);
        }
    }
    report.compare(GROUP, RATE, &["no proxy", SQUID, TINYPROXY, NGINX]);
    Ok(())
}

fn one(
    context: &Context,
    report: &mut Report,
    target: &Target,
    connections: u32,
    origin: std::net::SocketAddr,
) -> Result<(), Failure> {
    let case = case(connections);
    let key = |metric| Key { group: GROUP, case: &case, contestant: &target.name, metric };
    let path = format!("/run/{connections}/{}/{origin}/b/0", u64::from(context.seconds()) * 1000);
    let answer = client::ask(&target.address, &target.host, &path, None)?;
    let outcome: Outcome = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("{}: {error}: {}", target.name, String::from_utf8_lossy(&answer.body)))?;
    if outcome.errors > 0 || outcome.requests < 1.0 {
        let why = format!("{} failed requests, the last: {}", outcome.errors, outcome.last_error);
        report.skip(&format!("{}, {case}", target.name), &why);
        report.add(key(RATE), f64::NAN);
        return Ok(());
    }
    report.add(key(RATE), outcome.requests / outcome.duration_us * 1e6);
    report.add(key("p50 µs"), outcome.p50_us);
    report.add(key("p99 µs"), outcome.p99_us);
    Ok(())
}

/// The load program, with its proxy if there is one.
fn load(context: &Context, name: &str, proxy: Option<u16>) -> Result<(Target, Process), Failure> {
    let target = Target::new(name, free_port()?);
    let mut command = Command::new(context.binary("bench-load")?);
    command.arg(format!("tcp:{}", target.address)).env_remove("HTTP_PROXY");
    if let Some(port) = proxy {
        command.env("HTTP_PROXY", format!("http://127.0.0.1:{port}"));
    }
    let mut process = Process::start(context, &format!("load-{}", target.address), &command)?;
    process.ready(&target.address, START)?;
    Ok((target, process))
}

fn behind(context: &Context, name: &str, mut proxy: Process, port: u16) -> Result<Running, Failure> {
    proxy.ready(&Address::local(port), START)?;
    let (target, process) = load(context, name, Some(port))?;
    Ok(Running::new(vec![target], vec![proxy, process]))
}

fn direct(context: &Context, _: std::net::SocketAddr) -> Result<Running, Failure> {
    let (target, process) = load(context, "no proxy", None)?;
    Ok(Running::new(vec![target], vec![process]))
}

fn nginx(context: &Context, origin: std::net::SocketAddr) -> Result<Running, Failure> {
    let port = free_port()?;
    let command = contestants::nginx::command(context, "forward", port, &origin.to_string())?;
    behind(context, NGINX, Process::start(context, "nginx-forward", &command)?, port)
}

/// squid as a filter: nothing cached, nothing logged, one origin allowed.
fn squid(context: &Context, origin: std::net::SocketAddr) -> Result<Running, Failure> {
    let port = free_port()?;
    let folder = context.file("squid");
    std::fs::create_dir_all(&folder)?;
    // It drops root by itself and then wants to write here.
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let (at, host, origin_port) = (folder.display(), origin.ip(), origin.port());
    let text = format!(
        "http_port 127.0.0.1:{port}
acl origin dst {host}
acl port port {origin_port}
http_access allow origin port
http_access deny all
cache deny all
cache_mem 8 MB
access_log none
cache_store_log none
cache_log {at}/cache.log
pid_filename {at}/squid.pid
coredump_dir {at}
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
visible_hostname bench
"
    );
    let config = folder.join("squid.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new(context.peer("squid")?);
    command.arg("-N").arg("-f").arg(&config);
    behind(context, SQUID, Process::start(context, "squid", &command)?, port)
}

fn tinyproxy(context: &Context, _: std::net::SocketAddr) -> Result<Running, Failure> {
    let port = free_port()?;
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 1024\nAllow 127.0.0.1\nLogLevel Error\nDisableViaHeader Yes\n"
    );
    let config = context.file("tinyproxy.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new(context.peer("tinyproxy")?);
    command.arg("-d").arg("-c").arg(&config);
    behind(context, TINYPROXY, Process::start(context, "tinyproxy", &command)?, port)
}

/// The load program as an unmodified `http` Worker, behind every wall, with its proxy port. What is allowed is not
/// logged, as with the others.
fn cloister(context: &Context, origin: std::net::SocketAddr) -> Result<Running, Failure> {
    let policy = format!(
        "version = 1\nmode = \"enforce\"\ndefault = \"deny\"\n[[rule]]\nname = \"origin\"\nhosts = [\"{}\"]\n\
         ports = [{}]\nschemes = [\"http\"]\nnetworks = [\"127.0.0.0/8\"]\naction = \"allow\"\nlog = false\n",
        origin.ip(),
        origin.port()
    );
    let platform = Platform::start(context, "egress", &Settings { blanks: 1, egress: Some(policy) })?;
    let program = std::fs::read(context.static_binary("bench-load")?)?;
    // One invocation makes all the requests of a cell.
    let limits = json!({ "cpu_ms": 300_000, "subrequests": 100_000_000 });
    platform.deploy(&Upload {
        namespace: Some(NAMESPACE),
        name: "load",
        program: &program,
        contract: "http",
        metadata: json!({ "limits": limits }),
    })?;
    let host = "load.user.test".into();
    let target = Target { name: CLOISTER.into(), address: platform.front.clone(), host };
    Ok(Running::cloister(vec![target], platform))
}
