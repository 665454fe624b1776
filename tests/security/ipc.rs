//! The Worker protocol as an attack: whatever a Worker says, only it suffers. The client gets an
//! error with a code, the next request a fresh process, the neighbour its usual answer; the
//! supervisor neither grows nor keeps descriptors.

use std::time::Duration;

use cloister_tests::{Config, Platform, Upload, compile_c};
use serde_json::json;

/// Resident memory of a process in KiB, and how many descriptors it has open.
fn weight(pid: i32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.split_whitespace().next().unwrap().parse().unwrap();
    (memory, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

async fn platform() -> Platform {
    let route = "host = \"*.hostile.test\"\nworker = \"{1}\"\nnamespace = \"hostile\"";
    let waived: Vec<_> = crate::cell::waived().iter().map(|wall| wall.name()).collect();
    let config = Config::default().route(route).set("sandbox", "waive", format!("{waived:?}"));
    let platform = Platform::with(config).await;
    platform.namespace("hostile").await;
    let attacker = Upload::user("hostile", "attacker", compile_c("hostile/ipc_attack.c"));
    attacker.metadata("limits", json!({ "wall_ms": 3000 })).deploy(&platform).await;
    Upload::user("hostile", "neighbour", compile_c("hostile/ipc_attack.c")).deploy(&platform).await;
    platform
}

async fn ask(platform: &Platform, worker: &str, what: &str) -> (u16, Option<u16>, String) {
    let answer = platform.http().get(&format!("http://{worker}.hostile.test/{what}")).await;
    (answer.status.as_u16(), answer.code(), answer.text())
}

/// Attacks after which the request itself must fail.
const FATAL: &[&str] = &[
    "garbage",
    "half",
    "half-message",
    "huge-message",
    "huge-body",
    "just-over",
    "trailing",
    "unknown-variant",
    "bad-bool",
    "length-bomb",
    "not-utf8",
    "long-exception",
    "unknown-id",
    "id-zero",
    "hello-again",
    "status-low",
    "status-high",
    "status-100",
    "status-101",
    "tunnel-200",
    "bad-name",
    "empty-name",
    "split-response",
    "nul-value",
    "cut-headers",
    "body-not-inline",
    "forward-nothing",
    "open-unknown",
    "open-own",
    "discard-unknown",
    "end-unknown",
    "handoff-unbound",
    "fetch-unknown-request",
    "fetch-zero",
    "fetch-backwards",
    "fetch-flood",
    "cancel-unknown",
    "done-unknown",
    "flood",
    "closes",
    "exits",
    "crashes",
    "silent",
];

/// Attacks of which the client may see an answer, whole or broken off.
const ANSWERED: &[&str] = &[
    "twice",
    "descriptors",
    "descriptor",
    "on-control",
    "stream-too-long",
    "stream-no-end",
    "stream-wrong-end",
];

#[tokio::test]
async fn whatever_it_says_only_it_suffers() {
    let platform = platform().await;
    let fine = (200, None, "fine".to_owned());
    assert_eq!(ask(&platform, "attacker", "ok").await, fine);
    assert_eq!(ask(&platform, "neighbour", "ok").await, fine);
    let before = weight(platform.pid());
    let mut wrong = Vec::new();
    for what in FATAL {
        let (status, code, text) = ask(&platform, "attacker", what).await;
        println!("{what}: {status} {code:?}");
        if !(500..=599).contains(&status) || code.is_none() || text.contains("stolen") {
            wrong.push(format!("{what}: {status} {code:?} {text}"));
        }
        for worker in ["attacker", "neighbour"] {
            let after = ask(&platform, worker, "ok").await;
            if after != fine {
                wrong.push(format!("{worker} after {what}: {after:?}"));
            }
        }
    }
    for what in ANSWERED {
        let request = http::Request::get(format!("http://attacker.hostile.test/{what}"));
        let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
        let answer = platform.http().try_send(request).await;
        println!("{what}: {:?}", answer.as_ref().map(|answer| answer.status));
        // Its next request may still have met the process that is about to be ended: its own loss.
        let mut after = ask(&platform, "attacker", "ok").await;
        if after.1 == Some(1101) {
            after = ask(&platform, "attacker", "ok").await;
        }
        let neighbour = ask(&platform, "neighbour", "ok").await;
        if after != fine || neighbour != fine {
            wrong.push(format!("after {what}: {after:?}, {neighbour:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let after = weight(platform.pid());
    assert!(after.0 < before.0 + (48 << 10), "memory grew from {} to {} KiB", before.0, after.0);
    assert!(after.1 < before.1 + 64, "descriptors grew from {} to {}", before.1, after.1);
}

/// A Worker that reads nothing while many requests wait for it.
#[tokio::test]
async fn a_worker_that_never_reads_is_bounded() {
    let platform = platform().await;
    assert_eq!(ask(&platform, "attacker", "ok").await.0, 200);
    let before = weight(platform.pid());
    let url = "http://attacker.hostile.test/silent";
    let requests = (0..200).map(|_| {
        let client = platform.http();
        async move { client.post(url, vec![b'x'; 60_000]).await }
    });
    let answers = futures_util::future::join_all(requests);
    let answers = tokio::time::timeout(Duration::from_secs(60), answers).await.expect("answers in time");
    let failed = answers.iter().filter(|answer| answer.status.is_server_error()).count();
    assert_eq!(failed, 200);
    let after = weight(platform.pid());
    assert!(after.0 < before.0 + (64 << 10), "memory grew from {} to {} KiB", before.0, after.0);
    assert_eq!(ask(&platform, "attacker", "ok").await.0, 200);
    assert_eq!(ask(&platform, "neighbour", "ok").await.0, 200);
}

/// A binary that doesn't greet as it should is refused at upload, and nothing of it stays.
#[tokio::test]
async fn a_bad_greeting_is_refused_at_upload() {
    let platform = platform().await;
    for greeting in ["no-hello", "bad-protocol", "garbage-hello", "closes"] {
        let upload = Upload::user("hostile", greeting, compile_c("hostile/ipc_attack.c")).args(&[greeting]);
        let answer = upload.send(&platform).await;
        assert!(answer.status.is_client_error(), "{greeting}: {} {}", answer.status, answer.text());
        assert_eq!(ask(&platform, greeting, "ok").await.1, Some(1042), "{greeting}");
    }
    assert_eq!(ask(&platform, "neighbour", "ok").await.0, 200);
}
