//! Cloister, one data plane thread, every wall up: routes to an SDK Worker and to an unmodified HTTP server,
//! and a dispatch Worker that asks a user Worker, once looking at the answer and once by tail dispatch.

use serde_json::json;

use super::{Running, Target};
use crate::context::{Context, Failure};
use crate::platform::{NAMESPACE, Platform, Settings, Upload};

pub(crate) const ROUTE_IPC: &str = "cloister route -> SDK Worker";
pub(crate) const ROUTE_HTTP: &str = "cloister route -> http Worker";
pub(crate) const FETCH: &str = "cloister dispatch -> user (fetch)";
pub(crate) const TAIL: &str = "cloister dispatch -> user (tail)";

pub(super) fn start(context: &Context) -> Result<Running, Failure> {
    let platform = Platform::start(context, "cloister", &Settings { blanks: 4, egress: None })?;
    let worker = std::fs::read(context.static_binary("bench-worker")?)?;
    let dispatch = std::fs::read(context.static_binary("bench-dispatch")?)?;
    let hyper = std::fs::read(context.static_binary("bench-hyper")?)?;
    for (name, contract, program) in [("sdk", "ipc", &worker), ("server", "http", &hyper)] {
        let namespace = Some(NAMESPACE);
        platform.deploy(&Upload { namespace, name, program, contract, metadata: json!({}) })?;
    }
    for (name, tail) in [("dispatch-fetch", "no"), ("dispatch-tail", "yes")] {
        let bindings = json!([
            { "type": "dispatch_namespace", "name": "DISPATCHER", "namespace": NAMESPACE },
            { "type": "plain_text", "name": "TAIL", "text": tail },
        ]);
        let metadata = json!({ "bindings": bindings });
        let program = &dispatch;
        platform.deploy(&Upload { namespace: None, name, program, contract: "ipc", metadata })?;
    }
    let target = |name: &str, host: &str| Target {
        name: name.into(),
        address: platform.front.clone(),
        host: host.into(),
    };
    let targets = vec![
        target(ROUTE_IPC, "sdk.user.test"),
        target(ROUTE_HTTP, "server.user.test"),
        target(FETCH, "sdk.fetch.test"),
        target(TAIL, "sdk.tail.test"),
    ];
    Ok(Running::cloister(targets, platform))
}
