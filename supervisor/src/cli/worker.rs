//! `cloister worker`.

use std::fmt::Write as _;

use bytes::BytesMut;
use clap::Subcommand;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::Target;
use super::client::{self, Client};
use super::error::CliError;
use super::show::{Show, cell, printable, table};
use super::walls;
use crate::body::Body;
use crate::registry::Name;
use crate::serve::exit;

/// Longest line of a tail, bytes.
const LINE_BYTES: usize = 1 << 20;

#[derive(Debug, Subcommand)]
pub(super) enum Worker {
    /// List Workers.
    List {
        /// Of this dispatch namespace; without, those of the account.
        #[arg(long, short)]
        namespace: Option<Name>,
        /// Only those with this tag; may be repeated.
        #[arg(long, value_name = "TAG")]
        tag: Vec<String>,
    },
    /// Show one: version, settings, bindings.
    Get {
        #[command(flatten)]
        target: Target,
    },
    /// Show one with its live processes and the walls that were really raised, checked against what
    /// the kernel says of each process now; 12 when it does not confirm them.
    Inspect {
        #[command(flatten)]
        target: Target,
    },
    /// List the kept versions of one.
    Versions {
        #[command(flatten)]
        target: Target,
    },
    /// List all live processes.
    Processes,
    /// Show what happened to one: invocations, its output, starts and ends.
    Tail {
        #[command(flatten)]
        target: Target,
        /// Only what is kept, without waiting for more.
        #[arg(long)]
        no_follow: bool,
    },
    /// Show what the egress filter decided for one lately.
    Egress {
        #[command(flatten)]
        target: Target,
    },
    /// Delete one.
    Delete {
        #[command(flatten)]
        target: Target,
    },
}

const LISTED: [(&str, &str); 7] = [
    ("NAME", "/id"),
    ("CONTRACT", "/cloister/contract"),
    ("VERSION", "/cloister/number"),
    ("BYTES", "/cloister/size"),
    ("START ms", "/startup_time_ms"),
    ("TAGS", "/tags"),
    ("MODIFIED", "/modified_on"),
];

const PROCESSES: [(&str, &str); 9] = [
    ("NAMESPACE", "/namespace"),
    ("WORKER", "/worker"),
    ("PID", "/pid"),
    ("CONTRACT", "/contract"),
    ("UP ms", "/uptime_ms"),
    ("IN FLIGHT", "/in_flight"),
    ("CALLS", "/invocations"),
    ("CPU µs", "/cpu_us"),
    ("MEMORY", "/memory_bytes"),
];

const VERSIONS: [(&str, &str); 5] = [
    ("NUMBER", "/number"),
    ("VERSION", "/version"),
    ("CREATED", "/created_on"),
    ("BYTES", "/size"),
    ("SHA-256", "/etag"),
];

const DECISIONS: [(&str, &str); 7] = [
    ("VERDICT", "/verdict"),
    ("RULE", "/rule"),
    ("METHOD", "/method"),
    ("HOST", "/host"),
    ("PORT", "/port"),
    ("STATUS", "/status"),
    ("REASON", "/reason"),
];

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Worker {
    pub(super) async fn run(self, client: &Client, show: &Show) -> Result<(), CliError> {
        let get = async |path: String| client.call(Method::GET, &path, None).await;
        match self {
            Self::List { namespace, tag } => list(client, show, namespace.as_ref(), &tag).await?,
            Self::Get { target } => {
                let settings = get(format!("{}/settings", target.path())).await?;
                show.result(&settings, |settings| format!("{settings:#}"));
            }
            Self::Inspect { target } => {
                let worker = get(format!("{}/inspect", target.path())).await?;
                show.result(&worker, |worker| inspected(&target, worker));
                let denied: usize = rows(&worker["processes"])
                    .iter()
                    .map(|process| walls::disagreements(process).len())
                    .sum();
                if denied > 0 {
                    let message = format!(
                        "{}: the kernel does not confirm {denied} promises about its walls",
                        target.shown()
                    );
                    return Err(CliError::failed(exit::DISAGREES, message));
                }
            }
            Self::Versions { target } => {
                let versions = get(format!("{}/versions", target.path())).await?;
                show.result(&versions, |versions| table(rows(versions), &VERSIONS));
            }
            Self::Processes => {
                let live = get("/cloister/processes".to_owned()).await?;
                show.result(&live, |live| table(rows(live), &PROCESSES));
            }
            Self::Tail { target, no_follow: true } => {
                let events = get(format!("{}/tail", target.path())).await?;
                show.result(&events, |events| rows(events).iter().map(told).collect::<Vec<_>>().join("\n"));
            }
            Self::Tail { target, no_follow: false } => follow(client, show, &target).await?,
            Self::Egress { target } => {
                let decisions = get(format!("{}/egress", target.path())).await?;
                show.result(&decisions, |decisions| table(rows(decisions), &DECISIONS));
            }
            Self::Delete { target } => {
                let gone = client.call(Method::DELETE, &target.path(), None).await?;
                show.result(&gone, |_| format!("deleted {}", target.shown()));
            }
        }
        Ok(())
    }
}

async fn list(
    client: &Client,
    show: &Show,
    namespace: Option<&Name>,
    tags: &[String],
) -> Result<(), CliError> {
    let base = match namespace {
        Some(namespace) => format!("/workers/dispatch/namespaces/{namespace}/scripts"),
        None => "/workers/scripts".to_owned(),
    };
    let mut all = Vec::new();
    for page in 1u64.. {
        let mut query = format!("page={page}");
        if !tags.is_empty() {
            let tags: Vec<_> = tags.iter().map(|tag| format!("{tag}:yes")).collect();
            write!(query, "&tags={}", tags.join(","))
                .map_err(|error| CliError::failed(exit::FAILED, error.to_string()))?;
        }
        let mut answer = client.envelope(Method::GET, &format!("{base}?{query}"), None).await?;
        let Value::Array(some) = answer["result"].take() else { break };
        let done = some.is_empty();
        all.extend(some);
        let total = answer["result_info"]["total_count"].as_u64().unwrap_or(0);
        if done || all.len() as u64 >= total {
            break;
        }
    }
    show.result(&Value::Array(all), |all| table(rows(all), &LISTED));
    Ok(())
}

/// Prints events as they come, until the platform ends or the reader leaves.
async fn follow(client: &Client, show: &Show, target: &Target) -> Result<(), CliError> {
    let request = client.request(Method::GET, &format!("{}/tail?follow=true", target.path()));
    let response = client.send(request, Body::empty()).await?;
    if !response.status().is_success() {
        return client::answer(response).await.map(|_| ());
    }
    let mut body = response.into_body();
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| CliError::failed(exit::UNREACHABLE, format!("the tail broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        buffer.extend_from_slice(&data);
        while let Some(end) = memchr::memchr(b'\n', &buffer) {
            let line = buffer.split_to(end + 1);
            let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
            show.line(&if show.json { event.to_string() } else { told(&event) });
        }
        if buffer.len() > LINE_BYTES {
            return Err(CliError::failed(exit::FAILED, "the tail sent a line without end"));
        }
    }
    Ok(())
}

/// An event in a line.
fn told(event: &Value) -> String {
    let key = |key: &str| cell(event.get(key));
    match event["kind"].as_str() {
        Some("invocation") => format!(
            "{} {} status={} cpu={}µs wall={}µs{}{}",
            key("ray"),
            key("outcome"),
            key("status"),
            key("cpu_us"),
            key("wall_us"),
            if event["cold"] == true { " cold" } else { "" },
            event["reason"].as_str().map(|why| format!(": {}", printable(why))).unwrap_or_default(),
        ),
        Some("output") => format!("{}: {}", key("stream"), key("line")),
        Some("process") => format!("process {}: {}", key("pid"), key("message")),
        Some("lost") => format!("({} events were lost: too slow to follow)", key("events")),
        _ => event.to_string(),
    }
}

fn inspected(target: &Target, worker: &Value) -> String {
    let mut text = format!("{}\n", target.shown());
    for (title, pointer) in [
        ("version", "/cloister/version"),
        ("number", "/cloister/number"),
        ("contract", "/cloister/contract"),
        ("sha-256", "/etag"),
        ("start ms", "/startup_time_ms"),
        ("allow", "/cloister/allow"),
        ("trouble", "/trouble"),
    ] {
        text.push_str(&format!("  {title:9} {}\n", cell(worker.pointer(pointer))));
    }
    text.push_str(&format!("  resources {}\n", worker["cloister"]["resources"]));
    let processes = rows(&worker["processes"]);
    text.push_str(&format!("\nlive processes: {}\n", processes.len()));
    if !processes.is_empty() {
        text.push_str(&table(processes, &PROCESSES));
        text.push('\n');
    }
    if processes.is_empty() {
        text.push_str(&format!("\nwalls, at its upload\n{}", walls::told(&worker["walls"])));
    }
    for process in processes {
        text.push_str(&format!("\nwalls of process {}\n", cell(process.get("pid"))));
        text.push_str(&walls::told(&process["walls"]));
        text.push_str(&walls::confirmed(process));
    }
    text
}
