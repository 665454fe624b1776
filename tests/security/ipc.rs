//! The Worker protocol as an attack: whatever a Worker says, only it suffers. The client gets an
//! error with a code, the next request a fresh process, the neighbour its usual answer; the
//! supervisor neither grows nor keeps descriptors.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloister_tests::{Config, Platform, Upload, compile_c};
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::json;

/// Resident memory of a process in KiB, and how many descriptors it has open.
fn weight(pid: i32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.split_whitespace().next().unwrap().parse().unwrap();
    (memory, std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count())
}

/// What ends a Worker that would go on for ever, in milliseconds.
const WALL: u32 = 3000;

/// Long enough for what must be ended for another reason, also on an emulated machine.
fn wide_wall() -> u32 {
    if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() { 25_000 } else { WALL }
}

async fn platform(wall: u32) -> Platform {
    let route = "host = \"*.hostile.test\"\nworker = \"{1}\"\nnamespace = \"hostile\"";
    let waived: Vec<_> = crate::cell::waived().iter().map(|wall| wall.name()).collect();
    let config = Config::default().route(route).set("sandbox", "waive", format!("{waived:?}"));
    let platform = Platform::with(config).await;
    platform.namespace("hostile").await;
    let attacker = Upload::user("hostile", "attacker", compile_c("hostile/ipc_attack.c"));
    attacker.metadata("limits", json!({ "wall_ms": wall })).deploy(&platform).await;
    Upload::user("hostile", "neighbour", compile_c("hostile/ipc_attack.c")).deploy(&platform).await;
    platform
}

async fn ask(platform: &Platform, worker: &str, what: &str) -> (u16, Option<u16>, String) {
    let answer = platform.http().get(&format!("http://{worker}.hostile.test/{what}")).await;
    (answer.status.as_u16(), answer.code(), answer.text())
}

/// What breaks the protocol, or ends by itself: the request fails, and its process is over.
const ENDED: &[&str] = &[
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
    "body-not-inline",
    "open-unknown",
    "discard-unknown",
    "fetch-unknown-request",
    "fetch-zero",
    "fetch-backwards",
    "fetch-flood",
    "flood-in-flight",
    "cancel-unknown",
    "done-unknown",
    "flood-of-strays",
    "closes",
    "exits",
    "crashes",
];

/// Answers that are no HTTP.
const NO_ANSWER: &[&str] = &[
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
    "forward-nothing",
];

/// Nothing that is forbidden, for ever: the wall time ends it.
const ENDLESS: &[&str] = &["silent", "open-own", "end-unknown", "flood"];

/// Attacks beside an answer, which comes.
const ANSWERED: &[(&str, &str)] = &[
    ("twice", "once"),
    ("descriptors", "came with 253"),
    ("too-many-descriptors", "sending: EINVAL"),
    ("descriptor", "came with 1"),
    ("memfd", "ENOSYS"),
    ("on-control", "none: EPIPE"),
];

/// An answer that begins, and is then broken off.
const BROKEN_OFF: &[&str] = &["stream-too-long", "stream-no-end", "stream-wrong-end"];

/// What every attack is held against.
struct Trial {
    platform: Platform,
    wrong: Vec<String>,
}

impl Trial {
    fn pids(&self) -> Vec<i32> {
        self.platform.workers_named("attacker")
    }

    /// The request of the attack fails in these words and its process ends; then all is as before.
    async fn fails(&mut self, what: &str, expected: (u16, u16)) {
        let before = self.pids();
        let (status, code, text) = ask(&self.platform, "attacker", what).await;
        if (status, code) != (expected.0, Some(expected.1)) || text.contains("stolen") {
            self.wrong.push(format!("{what}: {status} {code:?} {text}"));
        }
        self.goes_on(what).await;
        println!("{what}: {status} {code:?}");
        // It is dead before it is gone.
        let end = Instant::now() + Duration::from_secs(20);
        while self.pids().iter().any(|pid| before.contains(pid)) {
            assert!(Instant::now() < end, "{what}: its process goes on");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Its next request, and the neighbour's.
    async fn goes_on(&mut self, what: &str) {
        for worker in ["attacker", "neighbour"] {
            let mut after = ask(&self.platform, worker, "ok").await;
            // It may still have met the process that is about to be ended: its own loss.
            if worker == "attacker" && after.1 == Some(1101) {
                after = ask(&self.platform, worker, "ok").await;
            }
            if after != (200, None, "fine".to_owned()) {
                self.wrong.push(format!("{worker} after {what}: {after:?}"));
            }
        }
    }
}

#[tokio::test]
async fn whatever_it_says_only_it_suffers() {
    let mut trial = Trial { platform: platform(wide_wall()).await, wrong: Vec::new() };
    trial.goes_on("nothing").await;
    let before = weight(trial.platform.pid());
    for what in ENDED {
        trial.fails(what, (500, 1101)).await;
    }
    // A mistake, as honest Workers make them.
    let (status, code, _) = ask(&trial.platform, "attacker", "handoff-unbound").await;
    assert_eq!((status, code), (500, Some(1101)));
    for what in NO_ANSWER {
        trial.fails(what, (502, 1053)).await;
    }
    for what in ENDLESS {
        trial.fails(what, (504, 1051)).await;
    }
    for (what, expected) in ANSWERED {
        let (status, _, text) = ask(&trial.platform, "attacker", what).await;
        println!("{what}: {status} {text}");
        if (status, text.as_str()) != (200, *expected) {
            trial.wrong.push(format!("{what}: {status} {text}"));
        }
        trial.goes_on(what).await;
    }
    for what in BROKEN_OFF {
        let request = http::Request::get(format!("http://attacker.hostile.test/{what}"));
        let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
        let answer = trial.platform.http().open(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{what}");
        let whole = tokio::time::timeout(Duration::from_secs(60), answer.into_body().collect()).await;
        if whole.expect("an end in time").is_ok() {
            trial.wrong.push(format!("{what}: the client took it for whole"));
        }
        trial.goes_on(what).await;
    }
    assert!(trial.wrong.is_empty(), "{:#?}", trial.wrong);
    let said = trial
        .platform
        .cli(["--json", "worker", "tail", "--no-follow", "attacker", "-n", "hostile"])
        .await
        .ok();
    assert!(said.out.contains("it floods"), "it did not flood: {}", said.out);
    let after = weight(trial.platform.pid());
    assert!(after.0 < before.0 + (48 << 10), "memory grew from {} to {} KiB", before.0, after.0);
    assert!(after.1 < before.1 + 64, "descriptors grew from {} to {}", before.1, after.1);
}

/// While one floods, another's requests are answered, and the supervisor holds little of the flood.
#[tokio::test]
async fn a_flood_is_its_own() {
    let platform = platform(WALL).await;
    floods(&platform, "flood").await;
}

/// The same for the log, of which not all is kept, and that is told.
#[tokio::test]
async fn a_flood_of_the_log_is_its_own() {
    let platform = platform(WALL).await;
    floods(&platform, "log-without-end").await;
    floods(&platform, "log-lines").await;
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let said =
            platform.cli(["--json", "worker", "tail", "--no-follow", "attacker", "-n", "hostile"]).await.ok();
        if said.out.contains(" lines dropped)") {
            break;
        }
        assert!(Instant::now() < end, "nothing is told of what was dropped: {}", said.out);
    }
}

async fn floods(platform: &Platform, what: &str) {
    assert_eq!(ask(platform, "attacker", "ok").await.0, 200);
    let begin = Peak::begin(platform.pid());
    let flood = ask(platform, "attacker", what);
    let answers = Cell::new(0);
    let beside = async {
        loop {
            let answer = ask(platform, "neighbour", "ok").await;
            assert_eq!(answer, (200, None, "fine".to_owned()), "the neighbour, after {answers:?}");
            answers.set(answers.get() + 1);
        }
    };
    let (status, code, _) = tokio::select! {
        flooded = flood => flooded,
        () = beside => unreachable!(),
    };
    println!("{} answers beside {what}", answers.get());
    assert_eq!((status, code), (504, Some(1051)));
    assert!(answers.get() > 2, "the neighbour stood still");
    begin.grew_less_than(64 << 10);
}

/// The supervisor's memory at its highest.
struct Peak {
    pid: i32,
    before: u64,
}

impl Peak {
    fn begin(pid: i32) -> Self {
        // clear_refs(5) in proc(5): the peak is measured from now on.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        Self { pid, before: weight(pid).0 }
    }

    fn grew_less_than(self, kib: u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        println!("from {} to {peak} KiB at the most", self.before);
        assert!(peak < self.before + kib, "memory grew from {} to {peak} KiB", self.before);
    }
}

/// A Worker that reads nothing while many requests wait for it.
#[tokio::test]
async fn a_worker_that_never_reads_is_bounded() {
    let platform = platform(WALL).await;
    assert_eq!(ask(&platform, "attacker", "ok").await.0, 200);
    let begin = Peak::begin(platform.pid());
    let url = "http://attacker.hostile.test/silent";
    let requests = (0..200).map(|_| {
        let client = platform.http();
        async move { client.post(url, vec![b'x'; 60_000]).await }
    });
    let answers = futures_util::future::join_all(requests);
    let answers = tokio::time::timeout(Duration::from_secs(60), answers).await.expect("answers in time");
    let failed = answers.iter().filter(|answer| answer.status.is_server_error()).count();
    assert_eq!(failed, 200);
    begin.grew_less_than(64 << 10);
    assert_eq!(ask(&platform, "attacker", "ok").await.0, 200);
    assert_eq!(ask(&platform, "neighbour", "ok").await.0, 200);
}

/// Bodies of half a GiB in sum for a Worker that reads none of them: their clients wait, the supervisor
/// holds little. `unread-body` asks for each and lets it lie; `silent` does not even ask.
#[tokio::test]
async fn bodies_that_are_never_read_stay_with_their_clients() {
    const EACH: usize = 16 << 20;
    const REQUESTS: usize = 32;
    const CHUNK: usize = 64 << 10;
    let platform = platform(WALL).await;
    for what in ["unread-body", "silent"] {
        assert_eq!(ask(&platform, "attacker", "ok").await.0, 200);
        let begin = Peak::begin(platform.pid());
        let taken = Arc::new(AtomicUsize::new(0));
        let requests = (0..REQUESTS).map(|_| {
            let (client, taken) = (platform.http(), Arc::clone(&taken));
            let chunks = futures_util::stream::iter(0..EACH / CHUNK).map(move |_| {
                taken.fetch_add(CHUNK, Ordering::Relaxed);
                Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[b'x'; CHUNK])))
            });
            let request = http::Request::post(format!("http://attacker.hostile.test/{what}"));
            let request = request.body(StreamBody::new(chunks)).unwrap();
            async move { client.try_send(request).await }
        });
        let mut told = 0;
        for answer in futures_util::future::join_all(requests).await {
            match answer {
                Ok(answer) => {
                    // The first whose time is over takes the process from the others.
                    assert!(matches!(answer.code(), Some(1051 | 1101)), "{what}: {}", answer.text());
                    told += usize::from(answer.code() == Some(1051));
                }
                // Its connection was closed with much of the body on the way.
                Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{what}"),
            }
        }
        let taken = taken.load(Ordering::Relaxed) >> 20;
        println!("{what}: {told} of {REQUESTS} were told of their time, {taken} MiB left their clients");
        assert!(told > 0, "{what}: nobody was told of his time");
        begin.grew_less_than(64 << 10);
    }
    assert_eq!(ask(&platform, "neighbour", "ok").await.0, 200);
}

/// A binary that doesn't greet as it should is refused at upload, and nothing of it stays.
#[tokio::test]
async fn a_bad_greeting_is_refused_at_upload() {
    let platform = platform(WALL).await;
    for greeting in ["no-hello", "bad-protocol", "garbage-hello", "closes"] {
        let upload = Upload::user("hostile", greeting, compile_c("hostile/ipc_attack.c")).args(&[greeting]);
        let answer = upload.send(&platform).await;
        assert!(answer.status.is_client_error(), "{greeting}: {} {}", answer.status, answer.text());
        assert_eq!(ask(&platform, greeting, "ok").await.1, Some(1042), "{greeting}");
    }
    assert_eq!(ask(&platform, "neighbour", "ok").await.0, 200);
}
