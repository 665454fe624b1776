//! Starts a small C program behind every wall and asks it what it can do. Needs root and gcc.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something is wrong")]

mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloister_supervisor::launch::{
    Configure, Exit, ExitStatus, Launcher, Options, Process, Runner, StartError, Wall,
};
use cloister_supervisor::limits::{Limits, Resources};
use cloister_supervisor::registry::{
    Allow, Binding, Contract, Deployed, Digest, Files, HttpSocket, Linkage, WorkerId,
};

/// Where the launcher's binary is; built first.
fn runner() -> &'static Path {
    static RUNNER: OnceLock<PathBuf> = OnceLock::new();
    RUNNER.get_or_init(|| {
        let built =
            Command::new(env!("CARGO")).args(["build", "-q", "-p", "cloister-sandbox-runner"]).status();
        assert!(built.unwrap().success());
        let test = std::env::current_exe().unwrap();
        test.parent().unwrap().parent().unwrap().join("sandbox-runner")
    })
}

/// The C program, mode 0111 as in the store.
fn probe(link_statically: bool) -> PathBuf {
    static PROBES: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    let (statically, dynamically) = PROBES.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/launch/probe.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let build = |name: &str, flags: &[&str]| {
            let (to, made) = (folder.join(name), folder.join(format!("{name}.{}", std::process::id())));
            let done = Command::new("gcc")
                .args(["-O1", "-pthread", "-o"])
                .arg(&made)
                .args(flags)
                .arg(source)
                .status();
            assert!(done.expect("gcc is needed").success());
            std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o111)).unwrap();
            std::fs::rename(made, &to).unwrap();
            to
        };
        (build("static", &["-static"]), build("dynamic", &[]))
    });
    if link_statically { statically.clone() } else { dynamically.clone() }
}

/// A configured launcher; it ends with its handle.
struct Bench {
    launcher: Launcher,
    child: Child,
}

impl Bench {
    fn start(blanks: usize) -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "these tests need root");
        let runner = Runner::spawn(runner()).unwrap();
        let configure =
            Configure { uid_base: 300_000 + std::process::id() * 100, uid_count: 100, waived: vec![] };
        let options = Options { configure, blanks, specs: 4, start_timeout: Duration::from_secs(10) };
        let launcher = Launcher::connect(runner.socket, options).unwrap();
        Self { launcher, child: runner.child }
    }

    async fn run(&self, deployed: &Arc<Deployed>) -> (String, Exit) {
        let mut process = self.launcher.start(deployed).await.unwrap();
        let (stdout, stderr) = process.take_output().unwrap();
        let exit = process.exited().await;
        (text(stdout) + &text(stderr), exit)
    }

    /// Folders that this launcher made and not yet removed.
    fn folders(&self) -> Vec<PathBuf> {
        let own = format!("cloister.{}.", self.child.id());
        let mut found = Vec::new();
        let mut search = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
        while let Some((folder, depth)) = search.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let inside =
                    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with(&own));
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && depth < 6 {
                    if inside && !name.to_string_lossy().starts_with(&own) {
                        found.push(path.clone());
                    }
                    search.push((path, depth + 1));
                }
            }
        }
        found
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Children of the launcher, zombies too.
    fn children(&self) -> usize {
        let pid = self.child.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace().count()
    }

    async fn end(mut self) {
        self.launcher.shutdown().await;
        assert!(self.child.wait().unwrap().success());
        assert_eq!(self.folders(), Vec::<PathBuf>::new());
    }
}

fn text(pipe: OwnedFd) -> String {
    let mut text = String::new();
    std::fs::File::from(pipe).read_to_string(&mut text).unwrap();
    text
}

fn deployed(contract: Contract, mode: &str) -> Deployed {
    Deployed {
        id: WorkerId { namespace: None, name: "probe".into() },
        version: "1".into(),
        digest: Digest::parse(&"0".repeat(64)).unwrap(),
        binary: probe(true),
        linkage: Linkage::Static,
        contract,
        socket: HttpSocket::Listen,
        args: vec![mode.into()],
        bindings: BTreeMap::new(),
        limits: Limits::default(),
        resources: Resources { memory_bytes: 64 << 20, ..Resources::default() },
        allow: BTreeSet::new(),
        instances: 1,
        concurrency: 1,
        files: None,
        tags: BTreeSet::new(),
    }
}

fn has(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.lines().any(|have| have == *line), "no line {line:?} in:\n{report}");
    }
}

/// What holds for every Worker.
const ALWAYS: &[&str] = &[
    "pid=1",
    "uid=1000",
    "dumpable=0",
    "no_new_privs=1",
    "shadow=ENOENT",
    "list_root=EACCES",
    "write_tmp=ok",
    "null=ok",
    "netlink=EAFNOSUPPORT",
    "clone3=ENOSYS",
    "fork=EPERM",
    "nofile=1023",
    "read_passwd=ok",
    "env:HOME=/tmp",
    "env:TMPDIR=/tmp",
    "wx=EACCES",
];

#[tokio::test]
async fn a_static_http_worker_runs_and_is_confined() {
    let bench = Bench::start(1);
    let mut worker = deployed(Contract::Http, "report");
    worker.bindings.insert("GREETING".into(), Binding::PlainText("hello".into()));
    let (report, exit) = bench.run(&Arc::new(worker)).await;
    assert_eq!(exit.status, ExitStatus::Code(7), "{report}");
    has(&report, ALWAYS);
    has(&report, &["cwd=/", "proc_self=ENOENT", "read_app=ENOENT", "env:GREETING=hello", "env:PORT=8080"]);
    assert!(!report.contains("leak="), "{report}");
    let (_, exit) = bench.run(&Arc::new(deployed(Contract::Http, "mount"))).await;
    assert_eq!(exit.status, ExitStatus::Signal(31), "SIGSYS");
    bench.end().await;
}

#[tokio::test]
async fn a_dynamic_ipc_worker_runs_and_is_confined() {
    let bench = Bench::start(1);
    let mut worker = deployed(Contract::Ipc, "report");
    worker.binary = probe(false);
    worker.linkage = Linkage::Dynamic { interpreter: "/lib64/ld-linux-x86-64.so.2".into() };
    let (report, exit) = bench.run(&Arc::new(worker)).await;
    assert_eq!(exit.status, ExitStatus::Code(7), "{report}");
    has(&report, ALWAYS);
    has(&report, &["env:CLOISTER_CONTROL_FD=3", "udp=EAFNOSUPPORT"]);
    bench.end().await;
}

#[tokio::test]
async fn files_and_proc_are_given_read_only() {
    let bench = Bench::start(0);
    let folder = tempfile::tempdir().unwrap();
    let (tree, archive) = (folder.path().join("tree"), folder.path().join("files.tar"));
    std::fs::create_dir_all(tree.join("dir")).unwrap();
    std::fs::write(tree.join("dir/hello.txt"), "hello").unwrap();
    let tar = Command::new("tar")
        .args(["--format=ustar", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg(".")
        .status();
    assert!(tar.unwrap().success());
    let mut worker = deployed(Contract::Http, "report");
    worker.allow.insert(Allow::Proc);
    let digest = Digest::parse(&"1".repeat(64)).unwrap();
    worker.files = Some(Files { digest, path: archive, bytes: 4096 });
    let (report, exit) = bench.run(&Arc::new(worker)).await;
    assert_eq!(exit.status, ExitStatus::Code(7), "{report}");
    has(&report, ALWAYS);
    has(&report, &["cwd=/app", "read_app=ok", "proc_self=ok", "proc_cpuinfo=ENOENT"]);
    assert!(report.contains("write_app=E") && report.contains("change_app=E"), "{report}");
    bench.end().await;
}

#[tokio::test]
async fn http_is_served_through_sockets_of_the_namespace() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::start(1);
    for inherit in [false, true] {
        let mut worker = deployed(Contract::Http, if inherit { "inherit" } else { "serve" });
        worker.socket = if inherit { HttpSocket::Inherit } else { HttpSocket::Listen };
        let mut process = bench.launcher.start(&Arc::new(worker)).await.unwrap();
        let (stdout, _stderr) = process.take_output().unwrap();
        if !inherit {
            let stdout = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
            stdout.readable().await.unwrap();
        }
        let net = process.net().unwrap().clone();
        let proxy = net.take_proxy_listener().unwrap();
        assert!(net.take_proxy_listener().is_none());
        for _ in 0..60 {
            let socket = std::net::TcpStream::from(net.socket().await.unwrap());
            let socket = tokio::net::TcpSocket::from_std_stream(socket);
            let mut stream = socket.connect(([127, 0, 0, 1], 8080).into()).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("ok"), "{answer}");
        }
        assert!(process.cpu_time().unwrap() > Duration::ZERO);
        process.kill();
        assert_eq!(process.exited().await.status, ExitStatus::Signal(9));
        assert!(process.cpu_time().is_err());
        drop(proxy);
        let mut left = 0;
        while let Ok(_socket) = net.socket().await {
            left += 1;
            assert!(left < 100, "sockets go on after the end");
        }
    }
    bench.end().await;
}

#[tokio::test]
async fn a_worker_reaches_the_proxy_and_nothing_else() {
    use tokio::io::AsyncWriteExt;
    let bench = Bench::start(0);
    let mut process = bench.launcher.start(&Arc::new(deployed(Contract::Http, "fetch"))).await.unwrap();
    let listener = std::net::TcpListener::from(process.net().unwrap().take_proxy_listener().unwrap());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    drop(stream);
    let (stdout, _) = process.take_output().unwrap();
    assert_eq!(process.exited().await.status, ExitStatus::Code(0));
    let report = text(stdout);
    has(&report, &["proxy=ok", "got=hello", "elsewhere=EACCES", "bind_8080=ok", "bind_9090=EACCES"]);
    bench.end().await;
}

#[tokio::test]
async fn the_control_socket_goes_one_way() {
    let bench = Bench::start(0);
    let mut process = bench.launcher.start(&Arc::new(deployed(Contract::Ipc, "control"))).await.unwrap();
    let (stdout, _stderr) = process.take_output().unwrap();
    let control = process.take_control().unwrap();
    assert!(process.take_control().is_none() && process.net().is_none());
    cloister_ipc::descriptors::send(&control, b"hello", &[]).unwrap();
    let out = tokio::net::unix::pipe::Receiver::from_owned_fd(stdout).unwrap();
    let mut heard = String::new();
    while !heard.contains("say=") {
        out.readable().await.unwrap();
        let mut part = [0; 256];
        if let Ok(length) = out.try_read(&mut part) {
            heard.push_str(std::str::from_utf8(&part[..length]).unwrap());
        }
    }
    assert_eq!(heard, "heard=hello\nsay=EPIPE\n");
    bench.end().await;
}

#[tokio::test]
async fn memory_processes_and_exec_are_bounded() {
    let bench = Bench::start(0);
    let (_, exit) = bench.run(&Arc::new(deployed(Contract::Http, "eat"))).await;
    assert!(exit.oom_killed && exit.status == ExitStatus::Signal(9), "{exit:?}");
    assert!(exit.memory_peak.unwrap() > 32 << 20, "{exit:?}");

    let mut bomb = deployed(Contract::Http, "bomb");
    bomb.allow.insert(Allow::Processes);
    bomb.resources.pids = 20;
    let mut process = bench.launcher.start(&Arc::new(bomb)).await.unwrap();
    let out = tokio::net::unix::pipe::Receiver::from_owned_fd(process.take_output().unwrap().0).unwrap();
    out.readable().await.unwrap();
    let mut said = [0; 64];
    let length = out.try_read(&mut said).unwrap();
    assert_eq!(std::str::from_utf8(&said[..length]).unwrap(), "made=19\n");
    process.kill();
    process.exited().await;
    // Its output ends only when every process that held it is dead.
    out.readable().await.unwrap();
    assert_eq!(out.try_read(&mut said).unwrap(), 0);

    let mut broken = deployed(Contract::Http, "report");
    let folder = tempfile::tempdir().unwrap();
    broken.binary = folder.path().join("broken");
    std::fs::write(&broken.binary, "not a program").unwrap();
    std::fs::set_permissions(&broken.binary, std::fs::Permissions::from_mode(0o111)).unwrap();
    let (broken_path, readable) = (broken.binary.clone(), broken.clone());
    let error = bench.launcher.start(&Arc::new(broken)).await.unwrap_err();
    assert!(error.is_workers_fault(), "{error}");
    std::fs::set_permissions(&broken_path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = bench.launcher.start(&Arc::new(readable)).await.unwrap_err().to_string();
    assert!(error.contains("privilege") && error.contains("0511"), "{error}");
    let mut missing = deployed(Contract::Http, "report");
    missing.binary = "/nonexistent".into();
    let error = bench.launcher.start(&Arc::new(missing)).await.unwrap_err();
    assert!(matches!(error, StartError::File { .. }), "{error}");
    bench.end().await;
}

/// Not a test: what a start costs here. `cargo test --release -- --ignored cost --nocapture`
#[tokio::test]
#[ignore = "measures"]
async fn cost_of_a_start() {
    let bench = Bench::start(4);
    let worker = Arc::new(deployed(Contract::Http, "spin"));
    drop(bench.launcher.start(&worker).await.unwrap());
    let mut times = Vec::new();
    for _ in 0..300 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let began = std::time::Instant::now();
        let process = bench.launcher.start(&worker).await.unwrap();
        times.push(began.elapsed());
        process.kill();
        process.exited().await;
    }
    times.sort();
    println!("start to exec: p50 {:?}, p99 {:?}", times[150], times[297]);
    let process = bench.launcher.start(&worker).await.unwrap();
    let began = std::time::Instant::now();
    for _ in 0..100 {
        assert!(process.inspect().await.is_some());
    }
    println!("inspection, there and back: {:?}", began.elapsed() / 100);
    drop(process);
    bench.end().await;
}

#[tokio::test]
async fn two_hundred_lives_leave_nothing() {
    let bench = Bench::start(2);
    let worker = Arc::new(deployed(Contract::Http, "spin"));
    let first = bench.launcher.start(&worker).await.unwrap();
    let walls = serde_json::to_value(first.walls()).unwrap();
    assert_eq!(walls["enforced"]["capabilities"], 0, "{walls}");
    drop(first);
    let before = bench.descriptors();
    for _ in 0..200 {
        let process: Process = bench.launcher.start(&worker).await.unwrap();
        process.kill();
        process.exited().await;
    }
    // What is left are the blanks kept ready, and perhaps one on its way.
    assert!(bench.descriptors() <= before + 2, "{} after {before}", bench.descriptors());
    assert!(bench.children() <= 4, "{}", bench.children());
    let (launcher, pid) = (bench.launcher.clone(), bench.child.id());
    bench.end().await;
    assert!(matches!(launcher.start(&worker).await, Err(StartError::LauncherGone(_))));
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn when_the_launcher_is_killed_everything_dies_and_is_told() {
    let mut bench = Bench::start(1);
    let process = bench.launcher.start(&Arc::new(deployed(Contract::Http, "spin"))).await.unwrap();
    let pid = process.pid();
    bench.child.kill().unwrap();
    bench.child.wait().unwrap();
    bench.launcher.gone().await;
    assert_eq!(process.exited().await, process.exit().unwrap());
    let dead = async {
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dead).await.expect("the Worker outlived the launcher");
    // The next launchers remove the folders of the dead one; one that the kernel still counts as
    // busy, right after the death, waits for the launcher after that.
    assert!(!bench.folders().is_empty());
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while !bench.folders().is_empty() && std::time::Instant::now() < end {
        Bench::start(0).end().await;
    }
    assert_eq!(bench.folders(), Vec::<PathBuf>::new());
}

/// A launcher that runs as `uid`, and a copy of the probe that belongs to it.
fn as_user(uid: u32, waived: Vec<Wall>) -> (Result<Launcher, StartError>, Child, tempfile::TempDir) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (program, binary) = (folder.path().join("sandbox-runner"), folder.path().join("probe"));
    std::fs::copy(runner(), &program).unwrap();
    std::fs::copy(probe(true), &binary).unwrap();
    std::os::unix::fs::chown(&binary, Some(uid), Some(uid)).unwrap();
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (ours, theirs) = pair.unwrap();
    let child = Command::new(program).stdin(theirs).uid(uid).gid(uid).current_dir("/").spawn().unwrap();
    let configure = Configure { uid_base: 300_000, uid_count: 10, waived };
    let options = Options { configure, blanks: 1, specs: 4, start_timeout: Duration::from_secs(10) };
    (Launcher::connect(ours, options), child, folder)
}

#[tokio::test]
async fn without_root_what_is_missing_must_be_waived() {
    let (refused, mut child, _) = as_user(65_534, vec![]);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("own-uid") && error.contains("waive"), "{error}");
    child.wait().unwrap();

    let (launcher, mut child, folder) = as_user(65_534, vec![Wall::OwnUid, Wall::Cgroup]);
    let launcher = launcher.unwrap();
    assert!(!launcher.machine().own_uid);
    let mut worker = deployed(Contract::Http, "report");
    worker.binary = folder.path().join("probe");
    worker.allow.insert(Allow::Proc);
    let worker = Arc::new(worker);
    for _ in 0..3 {
        let mut process = launcher.start(&worker).await.unwrap();
        assert_eq!(process.walls().uid, 65_534);
        let (stdout, _) = process.take_output().unwrap();
        assert_eq!(process.exited().await.status, ExitStatus::Code(7));
        let report = text(stdout);
        has(&report, ALWAYS);
        has(&report, &["proc_self=ok", "proc_cpuinfo=ENOENT"]);
    }
    let mut worker = Deployed::clone(&worker);
    worker.args = vec!["spin".into()];
    let process = launcher.start(&Arc::new(worker)).await.unwrap();
    let seen = process.inspect().await.unwrap();
    assert_eq!(seen.disagreements, Vec::<String>::new(), "{seen:#?}");
    for _ in 0..40 {
        drop(process.net().unwrap().socket().await.unwrap());
    }
    launcher.shutdown().await;
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_wall_that_must_stand_can_not_be_waived() {
    let runner = Runner::spawn(runner()).unwrap();
    let configure = Configure { uid_base: 300_000, uid_count: 10, waived: vec![Wall::Seccomp] };
    let options = Options { configure, blanks: 0, specs: 1, start_timeout: Duration::from_secs(5) };
    let error = Launcher::connect(runner.socket, options).unwrap_err();
    assert!(error.to_string().contains("seccomp"), "{error}");
    let mut child = runner.child;
    assert!(!child.wait().unwrap().success());
}
