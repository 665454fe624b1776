//! The API against a real store and a pool that starts nothing.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use cloister_policies::sandbox::SandboxPolicy;

use super::*;
use crate::registry::{Binding, Contract, Deployed, Name, Registry, WorkerId};
use crate::store::StateDir;
use crate::telemetry::Telemetry;

const BASE: &str = "/client/v4/accounts/default/workers";

#[derive(Default)]
struct FakePool {
    refuse: Mutex<Option<String>>,
    retired: Mutex<Vec<String>>,
    probed: Mutex<Vec<Arc<Deployed>>>,
}

impl Pool for FakePool {
    fn probe(&self, deployed: &Arc<Deployed>) -> BoxFuture<'static, Result<Startup, ProbeFailure>> {
        assert!(deployed.binary.is_file());
        self.probed.lock().unwrap().push(Arc::clone(deployed));
        let refuse = self.refuse.lock().unwrap().clone();
        Box::pin(async move {
            match refuse {
                Some(text) => Err(ProbeFailure(text)),
                None => Ok(Startup { startup_ms: 3, walls: json!({"landlock": 7}) }),
            }
        })
    }

    fn retire(&self, worker: &WorkerId) {
        self.retired.lock().unwrap().push(worker.to_string());
    }

    fn inspect(&self, worker: &WorkerId) -> BoxFuture<'static, Vec<Value>> {
        let (namespace, name) = (worker.namespace.clone(), worker.name.clone());
        let process = json!({
            "namespace": namespace.as_deref(), "worker": name.as_ref(), "version": "v", "pid": 1,
            "kernel": {}, "disagreements": ["seccomp: promised 3 filters, seen 1"],
        });
        Box::pin(async move { vec![process] })
    }

    fn trouble(&self, _: &WorkerId) -> Option<String> {
        None
    }

    fn live(&self) -> Vec<Value> {
        vec![json!({"namespace": "n", "worker": "a", "version": "v", "pid": 1})]
    }
}

struct Machine {
    folder: tempfile::TempDir,
    pool: Arc<FakePool>,
    registry: Registry,
    router: Router,
}

impl Machine {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(folder: tempfile::TempDir) -> Self {
        let (pool, registry) = (Arc::new(FakePool::default()), Registry::default());
        let settings =
            Settings { account: Name::default_account(), upload_bytes: 4 << 20, sandbox: policy() };
        let state = StateDir::open(folder.path(), None).unwrap();
        let platform = Platform::open(settings, state, parts(&registry, &pool)).unwrap();
        Self { folder, pool, registry, router: router(Arc::new(platform)) }
    }

    fn restart(self) -> Self {
        let Self { folder, router, .. } = self;
        drop(router);
        Self::at(folder)
    }

    async fn raw(&self, request: Request<Body>) -> (StatusCode, bytes::Bytes) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    async fn call(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let uri = if path.starts_with("/client") { path.to_owned() } else { format!("{BASE}{path}") };
        let (status, body) =
            self.raw(Request::builder().method(method).uri(uri).body(body.into()).unwrap()).await;
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["success"], status.is_success());
        assert!(value["errors"].is_array() && value["messages"].is_array());
        (status, value)
    }

    async fn ok(&self, method: Method, path: &str, body: impl Into<Body>) -> Value {
        let (status, value) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{value}");
        value["result"].clone()
    }

    async fn code(&self, method: Method, path: &str, body: impl Into<Body>) -> (StatusCode, u64, String) {
        let (status, value) = self.call(method, path, body).await;
        let error = &value["errors"][0];
        let message = error["message"].as_str().unwrap().to_owned();
        (status, error["code"].as_u64().unwrap(), message)
    }

    async fn upload(&self, path: &str, metadata: Value, parts: &[(&str, &[u8])]) -> (StatusCode, Value) {
        let mut body = Vec::new();
        let mut part = |name: &str, file: &str, content: &[u8]| {
            body.extend_from_slice(
                format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        };
        part("metadata", "", metadata.to_string().as_bytes());
        for (name, content) in parts {
            part(name, &format!("; filename=\"{name}\""), content);
        }
        body.extend_from_slice(b"--XX--\r\n");
        let request = Request::put(format!("{BASE}{path}"))
            .header("content-type", "multipart/form-data; boundary=XX")
            .body(Body::from(body))
            .unwrap();
        let (status, body) = self.raw(request).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Deploys a program to `n/a`, making the namespace.
    async fn deployed(&self, metadata: Value) -> Value {
        self.call(Method::POST, "/dispatch/namespaces", r#"{"name":"n"}"#).await;
        let (status, value) = self.upload(A, metadata, &[("program", &program())]).await;
        assert_eq!(status, StatusCode::OK, "{value}");
        value["result"].clone()
    }
}

struct NoEgress;

impl Egress for NoEgress {
    fn decisions(&self, worker: &WorkerId) -> Vec<Value> {
        vec![json!({"worker": worker.to_string(), "verdict": "deny"})]
    }

    fn policies(&self) -> Vec<Value> {
        Vec::new()
    }
}

fn parts(registry: &Registry, pool: &Arc<FakePool>) -> Parts {
    Parts {
        registry: registry.clone(),
        pool: Arc::clone(pool) as _,
        egress: Arc::new(NoEgress),
        telemetry: Telemetry::default(),
        stop: tokio::sync::watch::channel(false).1,
    }
}

fn policy() -> Arc<SandboxPolicy> {
    let shipped = std::fs::read_to_string("../policies/sandbox/default.toml").unwrap();
    let text = format!("{shipped}\n[[grant]]\nallow = [\"processes\"]\n");
    Arc::new(SandboxPolicy::parse(std::path::Path::new("sandbox.toml"), &text).unwrap())
}

const A: &str = "/dispatch/namespaces/n/scripts/a";

fn program() -> Vec<u8> {
    std::fs::read("/bin/true").unwrap()
}

fn id() -> WorkerId {
    WorkerId { namespace: Some("n".into()), name: "a".into() }
}

#[tokio::test]
async fn the_life_of_a_namespace() {
    let machine = Machine::new();
    let made = machine.ok(Method::POST, "/dispatch/namespaces", r#"{"name":"production"}"#).await;
    assert_eq!(made["namespace_name"], "production");
    assert!(machine.registry.snapshot().has_namespace("production"));
    let again = machine.code(Method::POST, "/dispatch/namespaces", r#"{"name":"production"}"#).await;
    assert_eq!((again.0, again.1), (StatusCode::CONFLICT, 100_120));
    assert_eq!(machine.ok(Method::GET, "/dispatch/namespaces", "").await[0], made);
    assert_eq!(machine.ok(Method::GET, "/dispatch/namespaces/production", "").await, made);
    let machine = machine.restart();
    assert!(machine.registry.snapshot().has_namespace("production"));
    machine.ok(Method::DELETE, "/dispatch/namespaces/production", "").await;
    let gone = machine.code(Method::GET, "/dispatch/namespaces/production", "").await;
    assert_eq!((gone.0, gone.1), (StatusCode::NOT_FOUND, 100_119));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_name() {
    let machine = Machine::new();
    for (method, path, body, code, says) in [
        (Method::POST, "/dispatch/namespaces", r#"{"name":"A"}"#, 10001, "is not a name"),
        (Method::POST, "/dispatch/namespaces", r#"{"name":"a","x":1}"#, 10001, "unknown field `x`"),
        (Method::POST, "/dispatch/namespaces", "{", 10001, "EOF"),
        (Method::GET, "/dispatch/namespaces?x=1", "", 10001, "\"x\" is not supported"),
        (Method::GET, "/dispatch/namespaces/none/scripts", "", 100_119, "none"),
        (Method::GET, "/scripts/none", "", 10007, "there is no Worker none"),
        (Method::GET, "/scripts?tags=a", "", 10001, "tag:yes"),
        (Method::GET, "/scripts?per_page=0", "", 10001, "per_page"),
        (Method::POST, "/scripts/a", "", 7003, "no API operation POST"),
        (Method::PUT, "/scripts/a", "", 10001, "multipart"),
        (Method::GET, "/client/v4/accounts/other/workers/scripts", "", 7003, "account is default"),
        (Method::GET, "/client/v5", "", 7003, "no API operation"),
    ] {
        let (_, found, message) = machine.code(method, path, body).await;
        assert!(found == code && message.contains(says), "{path}: {found} {message}");
    }
}

#[tokio::test]
async fn an_upload_is_checked_started_and_published() {
    let machine = Machine::new();
    let script = machine
        .deployed(json!({
            "main_module": "program",
            "bindings": [
                {"type": "plain_text", "name": "TEXT", "text": "hello"},
                {"type": "secret_text", "name": "KEY", "text": "s3cret"},
                {"type": "dispatch_namespace", "name": "DISPATCHER", "namespace": "n"},
            ],
            "tags": ["gold"],
            "limits": {"cpu_ms": 50},
            "cloister": {"args": ["-p", "${PORT}"], "allow": ["processes"], "concurrency": 1},
        }))
        .await;
    assert_eq!(script["id"], "a");
    assert_eq!(script["startup_time_ms"], 3);
    let deployed = machine.registry.get(&id()).unwrap();
    assert_eq!(deployed.contract, Contract::Http);
    assert_eq!(deployed.bindings["KEY"], Binding::Secret("s3cret".to_owned()));
    assert_eq!(deployed.limits.cpu_ms, Some(50));
    assert_eq!(machine.pool.retired.lock().unwrap().as_slice(), ["n/a"]);

    let settings = machine.ok(Method::GET, &format!("{A}/settings"), "").await;
    assert!(!settings.to_string().contains("s3cret"));
    assert_eq!(settings["limits"], json!({"cpu_ms": 50}));
    let inspected = machine.ok(Method::GET, &format!("{A}/inspect"), "").await;
    assert_eq!((&inspected["walls"]["landlock"], &inspected["processes"][0]["pid"]), (&json!(7), &json!(1)));
    let content = Request::get(format!("{BASE}{A}/content")).body(Body::empty()).unwrap();
    assert_eq!(machine.raw(content).await.1, program());
    let found = machine.ok(Method::GET, "/dispatch/namespaces/n/scripts?tags=gold:yes", "").await;
    assert_eq!(found[0]["id"], "a");

    let machine = machine.restart();
    let again = machine.registry.get(&id()).unwrap();
    assert_eq!((&again.version, &again.bindings), (&deployed.version, &deployed.bindings));
    machine.ok(Method::DELETE, A, "").await;
    assert!(machine.registry.get(&id()).is_none());
    assert_eq!(std::fs::read_dir(machine.folder.path().join("binaries")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_refused_upload_changes_nothing() {
    let machine = Machine::new();
    machine.deployed(json!({"main_module": "program"})).await;
    let before = machine.registry.get(&id()).unwrap().version.clone();
    let main = || json!({"main_module": "program"});
    let good = program();
    let with = |key: &str, value: Value| {
        let mut metadata = main();
        metadata[key] = value;
        metadata
    };
    let large = vec![0; 5 << 20];
    let mut stack = program();
    let header = stack.windows(4).position(|kind| kind == 0x6474_e551_u32.to_le_bytes()).unwrap();
    stack[header + 4] = 7;
    for (metadata, parts, code, says) in [
        (main(), vec![("program", &b"#!/bin/sh\n"[..])], 10021, "is a script"),
        (main(), vec![("program", &good[..100])], 10021, "damaged"),
        (main(), vec![("program", &stack[..])], 10021, "an executable stack"),
        (main(), vec![("program", &large[..])], 10006, "larger than"),
        (main(), vec![("other", &good[..])], 10001, "no part named \"program\" (there are: other)"),
        (main(), vec![("program", &good[..]), ("x", &b"x"[..])], 10001, "says nothing of the part \"x\""),
        (json!({}), vec![("program", &good[..])], 10001, "main_module is missing"),
        (with("logpush", json!(true)), vec![("program", &good[..])], 10001, "`logpush`"),
        (with("cloister", json!({"allow": ["jit"]})), vec![("program", &good[..])], 10001, "processes"),
        (
            with("cloister", json!({"instances": 0})),
            vec![("program", &good[..])],
            10001,
            "instances: 0 is not allowed",
        ),
        (
            with("cloister", json!({"files": "t"})),
            vec![("program", &good[..]), ("t", &b"x"[..])],
            10001,
            "tar",
        ),
        (
            with("bindings", json!([{"type": "service", "name": "S", "service": "none"}])),
            vec![("program", &good[..])],
            10007,
            "deploy that one first",
        ),
        (
            with("bindings", json!([{"type": "inherit", "name": "S"}])),
            vec![("program", &good[..])],
            10001,
            "none to inherit",
        ),
    ] {
        let (status, value) = machine.upload(A, metadata, &parts).await;
        let error = &value["errors"][0];
        assert!(!status.is_success());
        assert!(
            error["code"] == code && error["message"].as_str().unwrap().contains(says),
            "{says}: {error}"
        );
    }
    *machine.pool.refuse.lock().unwrap() = Some("exited with 1: no such file".to_owned());
    let (_, value) = machine.upload(A, main(), &[("program", &good)]).await;
    assert_eq!(value["errors"][0], json!({"code": 10021, "message": "exited with 1: no such file"}));
    let (_, value) = machine.upload("/dispatch/namespaces/m/scripts/a", main(), &[("program", &good)]).await;
    assert_eq!(value["errors"][0]["code"], 100_119);
    assert_eq!(machine.registry.get(&id()).unwrap().version, before);
    assert_eq!(std::fs::read_dir(machine.folder.path().join("staging")).unwrap().count(), 0);
}

/// The parser keeps the head of a part whole, and reads all of it again at each byte that comes.
#[tokio::test]
async fn the_head_of_a_part_is_bounded() {
    let machine = Machine::new();
    machine.call(Method::POST, "/dispatch/namespaces", r#"{"name":"n"}"#).await;
    let pieces = futures_util::stream::iter((0..4096).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 16 << 10])));
    let begin = futures_util::stream::iter([Ok(b"--XX\r\nx: ".to_vec())]);
    let request = Request::put(format!("{BASE}{A}"))
        .header("content-type", "multipart/form-data; boundary=XX")
        .body(Body::from_stream(futures_util::StreamExt::chain(begin, pieces)))
        .unwrap();
    let (status, body) = machine.raw(request).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{}", String::from_utf8_lossy(&body));
    let long = "p".repeat(300);
    for name in [long.as_str(), "pro\u{1}gram"] {
        let (status, value) = machine.upload(A, json!({ "main_module": name }), &[(name, &program())]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{value}");
    }
}

#[tokio::test]
async fn secrets_tags_and_settings_change_the_worker() {
    let machine = Machine::new();
    machine.deployed(json!({"main_module": "program", "tags": ["a"]})).await;
    let first = machine.registry.get(&id()).unwrap().version.clone();

    machine.ok(Method::PUT, &format!("{A}/tags/b"), "").await;
    assert_eq!(machine.ok(Method::GET, &format!("{A}/tags"), "").await, json!(["a", "b"]));
    machine.ok(Method::DELETE, &format!("{A}/tags/a"), "").await;
    assert_eq!(machine.ok(Method::PUT, &format!("{A}/tags"), r#"["c"]"#).await, json!(["c"]));
    assert_eq!(machine.registry.get(&id()).unwrap().version, first);

    let secret = r#"{"name":"KEY","text":"one","type":"secret_text"}"#;
    assert_eq!(
        machine.ok(Method::PUT, &format!("{A}/secrets"), secret).await,
        json!({"name": "KEY", "type": "secret_text"})
    );
    let second = machine.registry.get(&id()).unwrap();
    assert_ne!(second.version, first);
    assert_eq!(second.bindings["KEY"], Binding::Secret("one".to_owned()));
    assert_eq!(machine.ok(Method::GET, &format!("{A}/secrets"), "").await[0]["name"], "KEY");
    machine.ok(Method::GET, &format!("{A}/secrets/KEY"), "").await;

    let patch = r#"{"bindings":[{"type":"plain_text","name":"T","text":"x"}],"keep_bindings":["secret_text"],"limits":{"wall_ms":9}}"#;
    machine.ok(Method::PATCH, &format!("{A}/settings"), patch).await;
    let third = machine.registry.get(&id()).unwrap();
    assert_eq!((third.bindings.len(), third.limits.wall_ms), (2, Some(9)));

    machine.ok(Method::DELETE, &format!("{A}/secrets/KEY"), "").await;
    let (status, code, _) = machine.code(Method::DELETE, &format!("{A}/secrets/KEY"), "").await;
    assert_eq!((status, code), (StatusCode::NOT_FOUND, 10056));
    let versions = machine.ok(Method::GET, &format!("{A}/versions"), "").await;
    assert_eq!(versions.as_array().unwrap().len(), 4);
    assert_eq!(versions[0]["number"], 4);
}

#[tokio::test]
async fn keep_bindings_keeps_secrets_over_an_upload() {
    let machine = Machine::new();
    let bindings = json!([{"type": "secret_text", "name": "KEY", "text": "one"}, {"type": "plain_text", "name": "T", "text": "x"}]);
    machine.deployed(json!({"main_module": "program", "bindings": bindings})).await;
    machine.deployed(json!({"main_module": "program", "keep_bindings": ["secret_text"]})).await;
    let deployed = machine.registry.get(&id()).unwrap();
    assert_eq!(deployed.bindings.keys().collect::<Vec<_>>(), ["KEY"]);
}

#[tokio::test]
async fn the_sdk_in_a_program_makes_its_contract_ipc() {
    let machine = Machine::new();
    machine.call(Method::POST, "/dispatch/namespaces", r#"{"name":"n"}"#).await;
    let mut program = program();
    program.extend_from_slice(&cloister_ipc::SDK_MARKER);
    let (_, value) = machine.upload(A, json!({"main_module": "p"}), &[("p", &program)]).await;
    assert_eq!(value["result"]["cloister"]["contract"], "ipc");
}

#[tokio::test]
async fn another_key_is_refused_at_start() {
    let machine = Machine::new();
    let key = machine.folder.path().join("secrets.key");
    let Machine { folder, router, .. } = machine;
    drop(router);
    std::fs::write(key, [7; 32]).unwrap();
    let state = StateDir::open(folder.path(), None).unwrap();
    let settings = Settings { account: Name::default_account(), upload_bytes: 1, sandbox: policy() };
    let opened = Platform::open(settings, state, parts(&Registry::default(), &Arc::default()));
    assert!(matches!(opened, Err(OpenError::WrongKey(_))));
}

#[tokio::test]
async fn what_happened_can_be_followed() {
    let machine = Machine::new();
    machine.deployed(json!({"main_module": "program"})).await;
    let decisions = machine.ok(Method::GET, &format!("{A}/egress"), "").await;
    assert_eq!(decisions, json!([{"worker": "n/a", "verdict": "deny"}]));
    assert_eq!(machine.ok(Method::GET, &format!("{A}/tail"), "").await, json!([]));
    let verified = machine.ok(Method::GET, "/client/v4/accounts/default/cloister/verify", "").await;
    assert_eq!(verified, json!({"checked": 1, "damaged": []}));
    let health = machine.raw(Request::get("/health").body(Body::empty()).unwrap()).await;
    assert_eq!(health.0, StatusCode::OK);
    let metrics = machine.raw(Request::get("/metrics").body(Body::empty()).unwrap()).await.1;
    assert!(metrics.ends_with(b"# EOF\n"));
}
