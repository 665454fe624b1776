//! A Cloister of our own: started in the run's folder, filled by the API.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{self, Address, Answer};
use crate::context::{Context, Failure};
use crate::process::{Process, free_port};
use crate::procfs;

/// Longest start and longest end: thousands of Workers take their time to go.
const PATIENCE: Duration = Duration::from_secs(60);
/// Host uids: below the range the tests use.
const UID_BASE: u32 = 5_000_000;
const UID_COUNT: u32 = 65_536;
/// The namespace of all user Workers here.
pub(crate) const NAMESPACE: &str = "bench";
const BOUNDARY: &str = "cloister-bench-boundary-1b9f3c";

/// What differs between platforms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Blanks kept waiting.
    pub(crate) blanks: u32,
    /// Egress policy of the namespace, as a policy file's text.
    pub(crate) egress: Option<String>,
}

/// A running supervisor with its launcher and Workers.
#[derive(Debug)]
pub(crate) struct Platform {
    process: Option<Process>,
    name: String,
    folder: PathBuf,
    pub(crate) front: Address,
    admin: Address,
}

/// A Worker to deploy.
#[derive(Debug, Clone)]
pub(crate) struct Upload<'a> {
    /// `None`: a Worker of the account.
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) program: &'a [u8],
    pub(crate) contract: &'a str,
    /// Further keys of the metadata.
    pub(crate) metadata: Value,
}

impl Platform {
    /// Starts one; `name` tells its folder from another's.
    pub(crate) fn start(context: &Context, name: &str, settings: &Settings) -> Result<Self, Failure> {
        let folder = context.file(name);
        // Left by an earlier round: each one starts from nothing.
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(folder.join("egress"))?;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755))?;
        if let Some(policy) = &settings.egress {
            std::fs::write(folder.join("egress").join(format!("{NAMESPACE}.toml")), policy)?;
        }
        let front = free_port()?;
        let config = folder.join("cloister.toml");
        std::fs::write(&config, Self::config(context, &folder, front, settings)?)?;
        let admin = Address::Unix(folder.join("run/admin.sock"));
        let front = Address::local(front);
        let mut platform = Self { process: None, name: name.into(), folder, front, admin };
        platform.restart(context)?;
        platform.api("POST", "/dispatch/namespaces", &json!({ "name": NAMESPACE }))?;
        Ok(platform)
    }

    /// Ends the supervisor if it runs, starts it again on the same state, waits until both doors are open.
    pub(crate) fn restart(&mut self, context: &Context) -> Result<(), Failure> {
        self.process = None;
        let mut command = Command::new(context.binary("cloister")?);
        command.arg("serve").arg("--config").arg(self.folder.join("cloister.toml"));
        let mut process = Process::start(context, &self.name, &command)?.patience(PATIENCE);
        process.ready(&self.admin, PATIENCE)?;
        process.ready(&self.front, PATIENCE)?;
        self.process = Some(process);
        Ok(())
    }

    /// One data plane thread, as every other contestant has one; every wall and all accounting on.
    fn config(context: &Context, folder: &Path, front: u16, settings: &Settings) -> Result<String, Failure> {
        let (at, runner) = (folder.display(), context.binary("sandbox-runner")?);
        Ok(format!(
            "state = \"{at}/state\"
user = \"nobody\"
[listen]
http = [\"127.0.0.1:{front}\"]
admin_socket = \"{at}/run/admin.sock\"
[runtime]
threads = 1
[sandbox]
runner = \"{runner}\"
uid_base = {UID_BASE}
uid_count = {UID_COUNT}
[pool]
blanks = {blanks}
idle_ms = 3600000
[egress]
policy_dir = \"{at}/egress\"
[[route]]
host = \"*.user.test\"
namespace = \"{NAMESPACE}\"
worker = \"{{1}}\"
[[route]]
host = \"*.fetch.test\"
dispatch = \"dispatch-fetch\"
[[route]]
host = \"*.tail.test\"
dispatch = \"dispatch-tail\"
",
            runner = runner.display(),
            blanks = settings.blanks,
        ))
    }

    /// Calls the API; `path` is below `/client/v4/accounts/default/workers`.
    pub(crate) fn api(&self, method: &str, path: &str, body: &Value) -> Result<Value, Failure> {
        let text = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.call(method, path, "application/json", &text)
    }

    /// Deploys a Worker and waits until it can be dispatched to.
    pub(crate) fn deploy(&self, upload: &Upload<'_>) -> Result<Value, Failure> {
        let mut metadata = json!({ "main_module": "program", "cloister": { "contract": upload.contract } });
        merge(&mut metadata, &upload.metadata);
        let mut body = Vec::with_capacity(upload.program.len() + 1024);
        let metadata = metadata.to_string();
        let parts: [(&str, &str, &[u8]); 2] = [
            ("metadata", "application/json", metadata.as_bytes()),
            ("program", "application/octet-stream", upload.program),
        ];
        for (name, kind, content) in parts {
            let disposition = format!("content-disposition: form-data; name=\"{name}\"; filename=\"{name}\"");
            body.extend_from_slice(
                format!("--{BOUNDARY}\r\n{disposition}\r\ncontent-type: {kind}\r\n\r\n").as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let path = match upload.namespace {
            Some(namespace) => format!("/dispatch/namespaces/{namespace}/scripts/{}", upload.name),
            None => format!("/scripts/{}", upload.name),
        };
        self.call("PUT", &path, &format!("multipart/form-data; boundary={BOUNDARY}"), &body)
    }

    fn call(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Value, Failure> {
        let path = format!("/client/v4/accounts/default/workers{path}");
        let answer =
            client::send(&self.admin, &client::Request { method, host: "admin", path: &path, kind, body })?;
        let said = || String::from_utf8_lossy(&answer.body).into_owned();
        if !(200..300).contains(&answer.status) {
            return Err(format!("{method} {path}: {}: {}", answer.status, said()).into());
        }
        let mut value: Value =
            serde_json::from_slice(&answer.body).map_err(|e| format!("{path}: {e}: {}", said()))?;
        Ok(value.get_mut("result").map(Value::take).unwrap_or_default())
    }

    /// Asks a user Worker through its route.
    pub(crate) fn ask(&self, worker: &str, path: &str) -> Result<Answer, Failure> {
        let answer = client::ask(&self.front, &format!("{worker}.user.test"), path, None)?;
        if answer.status == 200 {
            return Ok(answer);
        }
        let body = String::from_utf8_lossy(&answer.body);
        Err(format!(
            "{worker}{path}: {}{body}\n{}",
            answer.head,
            self.process.as_ref().map(Process::tail).unwrap_or_default()
        )
        .into())
    }

    /// The supervisor's pid.
    pub(crate) fn supervisor(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// Pids of Workers and blanks.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let ours = UID_BASE..UID_BASE + UID_COUNT;
        let mut pids = procfs::descendants(self.supervisor());
        pids.retain(|pid| procfs::uid(*pid).is_some_and(|uid| ours.contains(&uid)));
        pids
    }

    /// The parts of it, for accounting.
    pub(crate) fn parts(&self) -> Vec<(String, Vec<u32>)> {
        let workers = self.workers();
        let mut launcher = procfs::descendants(self.supervisor());
        launcher.retain(|pid| !workers.contains(pid));
        vec![
            ("supervisor".into(), vec![self.supervisor()]),
            ("launcher".into(), launcher),
            ("Workers".into(), workers),
        ]
    }
}

/// Objects key by key, everything else replaced.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (into, from) => *into = from.clone(),
    }
}
