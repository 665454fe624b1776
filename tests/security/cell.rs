//! Starts hostile programs behind the walls and hears what they found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::Read;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloister_supervisor::launch::{
    Configure, Exit, ExitStatus, Launcher, Options, Process, Runner, StartError, Wall,
};
use cloister_supervisor::limits::{Limits, Resources};
use cloister_supervisor::registry::{Allow, Contract, Deployed, Digest, HttpSocket, Linkage, WorkerId};
use cloister_tests::{compile_c, compile_c_dynamic, program};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempDir;

/// A bound for a failing test, not something to wait for.
const PATIENCE: Duration = Duration::from_secs(120);

/// `SIGSYS`: the filter's kill.
pub(crate) const SIGSYS: i32 = 31;

/// The launcher of all these tests. It ends with this program.
pub(crate) fn launcher() -> &'static Launcher {
    static LAUNCHER: OnceLock<Launcher> = OnceLock::new();
    LAUNCHER.get_or_init(|| launcher_with(waived()).unwrap().0)
}

/// Walls that the tester waived: those this machine's kernel can't raise.
pub(crate) fn waived() -> Vec<Wall> {
    let waived = std::env::var("CLOISTER_TEST_WAIVE").unwrap_or_default();
    let waived = waived.split_terminator(',');
    waived.map(|name| Wall::by_name(name).unwrap_or_else(|| panic!("no wall {name}"))).collect()
}

/// Start of 512 host uids that nobody else has, away from those of other tests' platforms.
pub(crate) fn uid_base() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let slot = std::process::id() % 32_768 * 128 + COUNT.fetch_add(1, Ordering::Relaxed) % 128;
    1_000_000_000 + slot * 512
}

/// A launcher with host uids of its own, and its pid.
pub(crate) fn launcher_with(waived: Vec<Wall>) -> Result<(Launcher, u32), StartError> {
    launcher_with_uids(waived).map(|(launcher, pid, _)| (launcher, pid))
}

/// As [`launcher_with`], and which uids.
pub(crate) fn launcher_with_uids(waived: Vec<Wall>) -> Result<(Launcher, u32, Range<u32>), StartError> {
    assert!(nix::unistd::geteuid().is_root(), "run these tests as root: walls can't be raised otherwise");
    let runner = Runner::spawn(&program("sandbox-runner")).unwrap();
    let base = uid_base();
    let options = Options {
        configure: Configure { uid_base: base, uid_count: 512, waived },
        blanks: 2,
        specs: 4,
        start_timeout: Duration::from_secs(30),
    };
    let pid = runner.child.id();
    Ok((Launcher::connect(runner.socket, options)?, pid, base..base + 512))
}

/// Which program, and how it is started.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    program: &'static str,
    contract: Contract,
    args: Vec<String>,
    allow: BTreeSet<Allow>,
    resources: Resources,
    dynamic: bool,
}

impl Cell {
    /// `tests/tenants/hostile/<program>.c`, in the `http` contract, without waivers.
    pub(crate) fn new(program: &'static str) -> Self {
        Self {
            program,
            contract: Contract::Http,
            args: Vec::new(),
            allow: BTreeSet::new(),
            resources: Resources { tmp_bytes: 4 << 20, ..Resources::default() },
            dynamic: false,
        }
    }

    /// A program of this machine's Debian, by its path.
    pub(crate) fn debian(path: &'static str) -> Self {
        assert!(Path::new(path).is_file(), "{path} is not there: run scripts/setup.sh");
        Self::new(path).dynamic()
    }

    pub(crate) fn contract(mut self, contract: Contract) -> Self {
        self.contract = contract;
        self
    }

    pub(crate) fn arg(mut self, arg: impl ToString) -> Self {
        self.args.push(arg.to_string());
        self
    }

    pub(crate) fn args<T: ToString>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.to_string()));
        self
    }

    pub(crate) fn allow(mut self, allow: Allow) -> Self {
        self.allow.insert(allow);
        self
    }

    /// Linked dynamically: it gets the loader and the library folders.
    pub(crate) fn dynamic(mut self) -> Self {
        self.dynamic = true;
        self
    }

    pub(crate) fn resources(mut self, change: impl FnOnce(&mut Resources)) -> Self {
        change(&mut self.resources);
        self
    }

    fn deployed(&self, args: Vec<String>) -> Arc<Deployed> {
        Arc::new(Deployed {
            id: WorkerId { namespace: Some("security".into()), name: name_of(self.program).into() },
            version: "1".into(),
            digest: Digest::parse(&"0".repeat(64)).unwrap(),
            binary: stored(self.program, self.dynamic),
            linkage: if self.dynamic {
                Linkage::Dynamic { interpreter: "/lib64/ld-linux-x86-64.so.2".into() }
            } else {
                Linkage::Static
            },
            contract: self.contract,
            socket: HttpSocket::Listen,
            args,
            bindings: BTreeMap::new(),
            limits: Limits::default(),
            resources: self.resources,
            allow: self.allow.clone(),
            instances: 1,
            concurrency: 1,
            files: None,
            tags: BTreeSet::new(),
        })
    }

    /// Starts it.
    pub(crate) async fn start(&self) -> Running {
        self.start_with(self.args.clone()).await
    }

    async fn start_with(&self, args: Vec<String>) -> Running {
        let mut process = launcher().start(&self.deployed(args)).await.unwrap();
        let (output, errors) = process.take_output().unwrap();
        Running { process, output: Lines::new(output), errors }
    }

    /// Starts it on another launcher than the usual one.
    pub(crate) async fn try_start_on(&self, launcher: &Launcher) -> Result<Process, StartError> {
        launcher.start(&self.deployed(self.args.clone())).await
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self) -> Ended {
        self.start().await.end().await
    }

    /// Runs every probe of a program made with `probe.h`, going on behind those that kill it.
    pub(crate) async fn probes(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        loop {
            let mut args = vec![findings.len().to_string()];
            args.extend(self.args.iter().cloned());
            let ended = self.start_with(args).await.end().await;
            let mut over = false;
            for line in &ended.lines {
                if line == "end" {
                    over = true;
                    continue;
                }
                let (number, rest) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
                assert_eq!(number.parse(), Ok(findings.len()), "{line}");
                let (name, result) = match rest.rsplit_once(" = ") {
                    Some((name, result)) => (name, Outcome::parse(result)),
                    None => (rest, Outcome::Killed(ended.exit.status)),
                };
                findings.push(Finding { name: name.to_owned(), outcome: result });
            }
            if over {
                assert_eq!(ended.exit.status, ExitStatus::Code(0));
                return findings;
            }
            let last = findings.last().map(|finding| finding.outcome.clone());
            assert!(
                matches!(last, Some(Outcome::Killed(_))),
                "{} ended without a word: {:?} after {findings:#?}: {}",
                self.program,
                ended.exit,
                ended.errors,
            );
        }
    }
}

/// The name of a program that is perhaps given by its path.
fn name_of(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

/// A program as the store keeps it: mode 0111, another owner than the Worker.
pub(crate) fn stored(name: &'static str, dynamic: bool) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("cloister-security-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
        folder
    });
    let path = folder.path().join(format!("{}{}", name_of(name), if dynamic { "-dynamic" } else { "" }));
    if !path.exists() {
        // Copied by a process of its own: a descriptor open for writing here could be inherited by
        // what another test starts, and the file then not be executed.
        let fresh = path.with_extension(format!("{:?}", std::thread::current().id()));
        let source = format!("hostile/{name}.c");
        let built = match (name.starts_with('/'), dynamic) {
            (true, _) => PathBuf::from(name),
            (false, true) => compile_c_dynamic(&source).path,
            (false, false) => compile_c(&source).path,
        };
        let mut copy = Command::new("cp");
        assert!(copy.arg(built).arg(&fresh).status().unwrap().success(), "{copy:?}");
        std::fs::set_permissions(&fresh, Permissions::from_mode(0o111)).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
    }
    path
}

/// A started program.
pub(crate) struct Running {
    pub(crate) process: Process,
    output: Lines,
    errors: OwnedFd,
}

/// A program that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) lines: Vec<String>,
    pub(crate) errors: String,
    pub(crate) exit: Exit,
}

impl Running {
    /// The next line it writes; `None` at the end of its output.
    pub(crate) async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.output.lines.recv());
        line.await.expect("a line in time")
    }

    /// Waits for its end.
    pub(crate) async fn end(self) -> Ended {
        self.end_after(None).await
    }

    /// Waits for its end, and kills it after `time`.
    pub(crate) async fn end_after(mut self, time: Option<Duration>) -> Ended {
        let mut errors = Lines::new(self.errors);
        let mut lines = Vec::new();
        let process = &self.process;
        let all = async {
            while let Some(line) = self.output.lines.recv().await {
                lines.push(line);
            }
            let mut text = String::new();
            while let Some(line) = errors.lines.recv().await {
                text.push_str(&line);
                text.push('\n');
            }
            (text, process.exited().await)
        };
        let killed = async {
            if let Some(time) = time {
                tokio::time::sleep(time).await;
                process.kill();
            }
            std::future::pending().await
        };
        let (errors, exit) = tokio::select! {
            ended = tokio::time::timeout(PATIENCE + time.unwrap_or_default(), all) => ended.expect("an end in time"),
            () = killed => unreachable!(),
        };
        Ended { lines, errors, exit }
    }
}

/// The lines of a pipe, read by a thread.
struct Lines {
    lines: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Lines {
    fn new(pipe: OwnedFd) -> Self {
        let flags = fcntl_getfl(&pipe).unwrap();
        fcntl_setfl(&pipe, flags - OFlags::NONBLOCK).unwrap();
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        std::thread::spawn(move || {
            let mut pipe = File::from(pipe);
            let (mut pending, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                pending.extend_from_slice(&buffer[..count]);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = pending.drain(..=end).collect();
                    let _ = sender.send(String::from_utf8_lossy(&line[..end]).into_owned());
                }
                if count == 0 {
                    if !pending.is_empty() {
                        let _ = sender.send(String::from_utf8_lossy(&pending).into_owned());
                    }
                    return;
                }
            }
        });
        Self { lines }
    }
}

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
}

/// What the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It worked.
    Ok(i64),
    /// Refused; the error's name.
    Errno(String),
    /// The process was ended.
    Killed(ExitStatus),
}

impl Outcome {
    fn parse(text: &str) -> Self {
        match text.strip_prefix("ok ") {
            Some(value) => Self::Ok(value.parse().unwrap()),
            None => Self::Errno(text.to_owned()),
        }
    }
}

/// Fails when any probe got through, naming each.
pub(crate) fn all_refused(findings: &[Finding]) {
    assert!(!findings.is_empty());
    for finding in findings {
        println!("{}: {:?}", finding.name, finding.outcome);
    }
    let is_breach = |finding: &&Finding| match &finding.outcome {
        Outcome::Ok(_) => true,
        // Killed by the filter is refused; any other death is a probe that went wrong.
        Outcome::Killed(status) => *status != ExitStatus::Signal(SIGSYS),
        Outcome::Errno(_) => false,
    };
    let breaches: Vec<_> = findings.iter().filter(is_breach).collect();
    assert!(breaches.is_empty(), "got through: {breaches:#?}");
}

/// Fails when any probe of a harmless twin was refused.
pub(crate) fn all_worked(findings: &[Finding]) {
    assert!(!findings.is_empty());
    let refused: Vec<_> =
        findings.iter().filter(|finding| !matches!(finding.outcome, Outcome::Ok(_))).collect();
    assert!(refused.is_empty(), "a harmless program was refused: {refused:#?}");
}

/// All but those that a waiver or a contract grants.
pub(crate) fn without(mut findings: Vec<Finding>, granted: &[&str]) -> Vec<Finding> {
    findings.retain(|finding| !granted.contains(&finding.name.as_str()));
    findings
}

/// What a named probe found.
pub(crate) fn outcome<'a>(findings: &'a [Finding], name: &str) -> &'a Outcome {
    let found = findings.iter().find(|finding| finding.name == name);
    &found.unwrap_or_else(|| panic!("no probe {name:?}")).outcome
}
