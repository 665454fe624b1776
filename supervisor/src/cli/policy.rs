//! `cloister policy check` and `cloister policy test`: what a policy says, before it is in force.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cloister_policies::address::{self, Refused};
use cloister_policies::egress::{
    Asked, Content, Decision, Mode, Policy, PolicyError, Problem, Scheme, Step, Target, Verdict,
};
use http::{Method, Uri};
use serde::Serialize;

use crate::egress::{Folder, OwnAddresses};
use crate::registry::WorkerId;
use crate::serve::exit;

/// `cloister policy …`
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check policy files, or all policy files of folders. Exits with 0 when all are valid, else 3.
    Check {
        /// Files or folders.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Tell what a policy decides and by which rule. Exits with 0 when the request is let through,
    /// 11 when it is denied, 3 when the question or the policy is not valid.
    Test {
        /// A policy file, or a policy folder (then --worker picks the file).
        file: PathBuf,
        /// What is asked for.
        #[arg(long)]
        url: String,
        /// Method; CONNECT asks for a tunnel to the URL's host and port.
        #[arg(long, default_value = "GET")]
        method: String,
        /// Who asks: `namespace/worker`, or `worker` for one of the account. Picks the file of a
        /// folder; of a file it is said whether, by its name, it could judge that Worker.
        #[arg(long)]
        worker: Option<String>,
        /// An address the host has; may be given several times. Nothing is looked up in DNS.
        #[arg(long)]
        address: Vec<IpAddr>,
    },
}

/// Denied.
const DENIED: u8 = exit::DENIED;
/// Not valid.
const INVALID: u8 = exit::CONFIG;

/// What was found, as text or JSON.
struct Report {
    code: u8,
    text: String,
    json: serde_json::Value,
}

/// Runs the subcommand and prints what it found.
#[must_use]
pub fn run(command: &PolicyCommand, json: bool) -> ExitCode {
    let report = match command {
        PolicyCommand::Check { files } => check(files),
        PolicyCommand::Test { file, url, method, worker, address } => {
            test(file, url, method, worker.as_deref(), address).unwrap_or_else(Report::from)
        }
    };
    if json {
        println!("{:#}", report.json);
    } else if report.code == INVALID {
        eprint!("{}", report.text);
    } else {
        print!("{}", report.text);
    }
    ExitCode::from(report.code)
}

/// Why a question got no answer.
enum Invalid {
    Policy(Box<PolicyError>),
    Other(String),
}

impl From<Invalid> for Report {
    fn from(error: Invalid) -> Self {
        let (text, problems) = match &error {
            Invalid::Policy(error) => (pretty(error), error.problems().to_vec()),
            Invalid::Other(text) => (format!("{text}\n"), Vec::new()),
        };
        let message = match error {
            Invalid::Policy(error) => error.to_string(),
            Invalid::Other(text) => text,
        };
        let json = serde_json::json!({ "verdict": "invalid", "reason": message, "problems": problems });
        Self { code: INVALID, text, json }
    }
}

/// The error with the lines it is about.
fn pretty(error: &PolicyError) -> String {
    format!("{:?}\n", miette::Report::new(error.clone()))
}

/// What `check` found about one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    valid: bool,
    mode: Option<Mode>,
    rules: Option<usize>,
    problems: Vec<Problem>,
    error: Option<String>,
}

fn check(files: &[PathBuf]) -> Report {
    let (mut text, mut found) = (String::new(), Vec::new());
    for file in files {
        match expand(file) {
            Ok(list) => list.iter().for_each(|file| found.push(check_one(file, &mut text))),
            Err(error) => found.push(unreadable(file, error, &mut text)),
        }
    }
    let code = if found.iter().all(|file| file.valid) { 0 } else { INVALID };
    let json = serde_json::to_value(&found).unwrap_or_default();
    Report { code, text, json }
}

/// A file as it is, a folder as its policy files.
fn expand(path: &Path) -> Result<Vec<PathBuf>, String> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = Folder::open(Some(path.to_owned())).map_err(|error| error.to_string())?;
    let files: Vec<_> = folder.status().into_iter().map(|status| path.join(status.file)).collect();
    if files.is_empty() { Err("there is no policy file in this folder".into()) } else { Ok(files) }
}

fn check_one(file: &Path, text: &mut String) -> Checked {
    let read = match std::fs::read_to_string(file) {
        Ok(read) => read,
        Err(error) => return unreadable(file, error.to_string(), text),
    };
    let file = file.to_owned();
    match Policy::parse(&file.display().to_string(), &read) {
        Ok(policy) => {
            let (mode, rules) = (policy.mode(), policy.rules().len());
            let _ = writeln!(
                text,
                "{}: valid, {rules} rule{}, mode {}",
                file.display(),
                if rules == 1 { "" } else { "s" },
                mode_name(mode)
            );
            Checked {
                file,
                valid: true,
                mode: Some(mode),
                rules: Some(rules),
                problems: Vec::new(),
                error: None,
            }
        }
        Err(error) => {
            text.push_str(&pretty(&error));
            let problems = error.problems().to_vec();
            Checked { file, valid: false, mode: None, rules: None, problems, error: Some(error.to_string()) }
        }
    }
}

fn unreadable(file: &Path, error: String, text: &mut String) -> Checked {
    let _ = writeln!(text, "{}: {error}", file.display());
    Checked {
        file: file.to_owned(),
        valid: false,
        mode: None,
        rules: None,
        problems: Vec::new(),
        error: Some(error),
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Report => "report",
    }
}

/// The answer to `test`.
#[derive(Debug, Serialize)]
struct Answer {
    file: PathBuf,
    /// Who asks, and whether a file of this name judges it.
    worker: Option<String>,
    applies: Option<bool>,
    mode: Mode,
    /// `allow`, `deny`, `outbound`, or `report` (would be denied, but the policy only reports).
    verdict: &'static str,
    rule: String,
    reason: Option<String>,
    scheme: Scheme,
    host: String,
    port: u16,
    method: String,
    path: Option<String>,
    /// The path that would be sent.
    path_sent: Option<String>,
    outbound_worker: Option<String>,
    addresses: Vec<JudgedAddress>,
    /// The rules that were looked at, in order.
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct JudgedAddress {
    address: IpAddr,
    permitted: bool,
    reason: Option<String>,
}

fn test(
    file: &Path,
    url: &str,
    method: &str,
    worker: Option<&str>,
    addresses: &[IpAddr],
) -> Result<Report, Invalid> {
    let other = |what: String| Invalid::Other(what);
    let uri: Uri = url.parse().map_err(|error| other(format!("--url {url:?}: {error}")))?;
    let target = Target::from_uri(&uri).map_err(|error| other(format!("--url: {error}")))?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| other(format!("--method {method:?} is not a method")))?;
    let asker = worker.map(worker_id);
    let file = policy_file(file, asker.as_ref())?;
    let text =
        std::fs::read_to_string(&file).map_err(|error| other(format!("{}: {error}", file.display())))?;
    let policy = Policy::parse(&file.display().to_string(), &text)
        .map_err(|error| Invalid::Policy(Box::new(error)))?;

    let tunnel = method == Method::CONNECT;
    let mut asked = target.asked(&method);
    if tunnel {
        // Only TLS passes a tunnel.
        asked = Asked { scheme: Scheme::Https, content: Content::Tunnel, ..asked };
    }
    let verdict = policy.judge(&asked);
    let addresses = match target.host.address() {
        Some(literal) => vec![literal],
        None => addresses.to_vec(),
    };
    let judged = judge_addresses(&verdict, &addresses)?;
    let mut answer = Answer {
        applies: asker.as_ref().map(|asker| applies(&file, asker)),
        worker: asker.map(|asker| asker.to_string()),
        mode: policy.mode(),
        verdict: if verdict.reported { "report" } else { verdict.decision.as_str() },
        rule: verdict.rule_name().to_owned(),
        reason: verdict.refusal.map(|refusal| refusal.to_string()),
        scheme: asked.scheme,
        host: target.host.to_string(),
        port: target.port,
        method: method.to_string(),
        path: (!tunnel).then(|| target.path.as_str().to_owned()),
        path_sent: policy.path_to_send(&asked).map(str::to_owned),
        outbound_worker: match verdict.decision {
            Decision::Outbound(worker) => worker.map(ToString::to_string),
            Decision::Allow | Decision::Deny => None,
        },
        steps: policy.explain(&asked),
        addresses: judged,
        file,
    };
    if verdict.decision == Decision::Allow
        && !answer.addresses.is_empty()
        && answer.addresses.iter().all(|address| !address.permitted)
    {
        answer.verdict = "deny";
        let first = answer.addresses.first().and_then(|address| address.reason.clone());
        answer.reason = first.map(|reason| format!("{reason}; only a rule's `networks` permits it"));
    }
    let code = if answer.verdict == "deny" { DENIED } else { 0 };
    let json = serde_json::to_value(&answer).unwrap_or_default();
    Ok(Report { code, text: tell(&answer), json })
}

fn worker_id(text: &str) -> WorkerId {
    match text.split_once('/') {
        Some((namespace, name)) => WorkerId { namespace: Some(namespace.into()), name: name.into() },
        None => WorkerId { namespace: None, name: text.into() },
    }
}

/// Whether a file of this name, somewhere in a policy folder, may judge `worker`.
fn applies(file: &Path, worker: &WorkerId) -> bool {
    let text = |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).unwrap_or("").to_owned();
    let (stem, parent) = (text(file.file_stem()), text(file.parent().and_then(Path::file_name)));
    let scope = match &worker.namespace {
        None => "account",
        Some(namespace) if matches!(&**namespace, "account" | "default") => return stem == "default",
        Some(namespace) => namespace,
    };
    stem == "default" || stem == scope || (parent == scope && stem == *worker.name)
}

/// The file itself, or the one of a folder that judges `worker`.
fn policy_file(path: &Path, worker: Option<&WorkerId>) -> Result<PathBuf, Invalid> {
    let other = |what: &str| Invalid::Other(format!("{}: {what}", path.display()));
    match (path.is_dir(), worker) {
        (false, _) => Ok(path.to_owned()),
        (true, None) => Err(other("this is a folder: --worker namespace/name tells which file judges")),
        (true, Some(worker)) => {
            let folder = Folder::open(Some(path.to_owned())).map_err(|error| other(&error.to_string()))?;
            let file = folder.file_of(worker).ok_or_else(|| {
                other(&format!("no file judges {worker} (not even default.toml), so everything is denied"))
            })?;
            Ok(path.join(file))
        }
    }
}

fn judge_addresses(verdict: &Verdict<'_>, addresses: &[IpAddr]) -> Result<Vec<JudgedAddress>, Invalid> {
    let own = OwnAddresses::new(Vec::new())
        .map_err(|error| Invalid::Other(format!("cannot list this host's addresses: {error}")))?
        .list();
    let judge = |address: &IpAddr| {
        let refused = address::permit(*address, &own, verdict.networks()).err();
        let reason = refused.map(|error: Refused| error.to_string());
        JudgedAddress { address: *address, permitted: refused.is_none(), reason }
    };
    Ok(addresses.iter().map(judge).collect())
}

fn tell(answer: &Answer) -> String {
    let mut text = format!("{}, by rule {:?} of {}\n", answer.verdict, answer.rule, answer.file.display());
    let path = answer.path.as_deref().unwrap_or("");
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<9} {value}");
    };
    line("request", &format!("{} {}://{}:{}{path}", answer.method, answer.scheme, answer.host, answer.port));
    if let Some(worker) = &answer.worker {
        let note = if answer.applies == Some(true) { "" } else { " (a file of this name does not judge it)" };
        line("worker", &format!("{worker}{note}"));
    }
    if let Some(sent) = answer.path_sent.as_ref().filter(|sent| *sent != path) {
        line("sent as", sent);
    }
    if let Some(reason) = &answer.reason {
        line("because", reason);
    }
    if answer.verdict == "outbound" {
        let worker = answer.outbound_worker.as_deref();
        line(
            "goes to",
            &match worker {
                Some(worker) => format!("the dispatch call's outbound Worker, or else {worker}"),
                None => "the dispatch call's outbound Worker; refused without one".into(),
            },
        );
    }
    for address in &answer.addresses {
        let permitted = format!("{} is permitted", address.address);
        line("address", address.reason.as_deref().unwrap_or(&permitted));
    }
    if answer.addresses.is_empty() && answer.verdict != "deny" {
        line("address", "not judged; --address tries one");
    }
    for step in &answer.steps {
        let fits = step.mismatch.map_or("this one decides", |mismatch| mismatch.describe());
        line("rule", &format!("{:?}: {fits}", step.rule));
    }
    if answer.rule == cloister_policies::egress::DEFAULT_RULE {
        line("rule", "no rule matches, the default decides");
    }
    text
}

#[cfg(test)]
mod tests;
