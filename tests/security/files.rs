//! Files: nothing of the host, of other Workers, of itself; only its own /tmp.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use cloister_supervisor::launch::ExitStatus;
use cloister_supervisor::registry::{Allow, Contract};

use crate::cell::{Cell, Finding, Outcome, all_refused, all_worked, outcome, without};

async fn attack(cell: Cell) -> Vec<Finding> {
    // Open to everybody: that it is not there must be what keeps it.
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(secret.path(), Permissions::from_mode(0o644)).unwrap();
    // An account of the host.
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let account = accounts.lines().last().unwrap();
    let findings = cell.arg(secret.path().display()).arg(account).probes().await;
    let read = outcome(&findings, "read a file of the host by its absolute path");
    assert_eq!(*read, Outcome::Errno("ENOENT".into()));
    findings
}

#[tokio::test]
async fn http_worker_reaches_no_file() {
    let findings = attack(Cell::new("files")).await;
    all_refused(&findings);
    // The absolute path passes the filter, so it must be landlock or the mount that refuses it.
    assert_eq!(*outcome(&findings, "execveat 1023 with an absolute path"), Outcome::Errno("EACCES".into()));
}

#[tokio::test]
async fn ipc_worker_reaches_no_file() {
    let findings = attack(Cell::new("files").contract(Contract::Ipc)).await;
    // Its control socket is descriptor 3, which it is given.
    all_refused(&without(findings, &["no descriptor but 0, 1, 2"]));
}

#[tokio::test]
async fn a_waiver_opens_no_file() {
    all_refused(&attack(Cell::new("files").allow(Allow::Processes)).await);
}

#[tokio::test]
async fn with_proc_it_sees_only_itself() {
    let findings = attack(Cell::new("files").allow(Allow::Proc)).await;
    let granted = ["list /proc", "list /proc/self/fd"];
    for name in granted {
        assert!(matches!(outcome(&findings, name), Outcome::Ok(_)), "{name}");
    }
    all_refused(&without(findings, &granted));
}

#[tokio::test]
async fn dynamic_worker_reaches_no_file() {
    all_refused(&attack(Cell::new("files").dynamic()).await);
}

/// The loader may be executed: it must not run what the Worker wrote.
#[tokio::test]
async fn the_loader_runs_nothing_of_tmp() {
    let own = Cell::new("loader").dynamic().arg("own").run().await;
    assert!(own.lines.iter().any(|line| line.contains("GNU C Library")), "the twin failed: {own:?}");
    let copy = Cell::new("loader").dynamic().arg("copy").run().await;
    assert!(!copy.lines.iter().any(|line| line.contains("GNU C Library")), "{copy:?}");
    assert!(copy.errors.contains("/tmp/copy"), "{copy:?}");
}

/// A program of the library folders may be run that way, and gains nothing: the walls that the kernel
/// can show still stand around it.
#[tokio::test]
async fn what_the_loader_runs_stands_behind_the_walls() {
    const WALLS: [&str; 12] = [
        "Uid:",
        "Gid:",
        "Groups:",
        "NSpid:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp:",
        "Seccomp_filters:",
    ];
    let walls = |pid: i32| -> Vec<String> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let lines = status.lines().filter(|line| WALLS.iter().any(|wall| line.starts_with(wall)));
        lines.map(str::to_owned).collect()
    };
    let mut before = Cell::new("listener").dynamic().arg("listen").start().await;
    assert_eq!(before.line().await.as_deref(), Some("listening"));
    let held = Cell::new("loader").dynamic().arg("held").start().await;
    let pid = held.process.pid();
    // It runs, and waits for room to say so.
    let says = || {
        let read = |what| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap();
        read("comm").starts_with("ld-linux") && read("syscall").starts_with("1 0x1 ")
    };
    let end = Instant::now() + Duration::from_secs(60);
    while !says() {
        assert!(Instant::now() < end, "the C library does not run");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let inspection = held.process.inspect().await.expect("it lives");
    // But one: the loader's file may be read, so the kernel lets its process be dumped. (Nobody can: ptrace is
    // killed, its uid and its pid namespace are its own, a core of one byte is none.)
    let [dumpable] = inspection.disagreements.as_slice() else { panic!("{:#?}", inspection.disagreements) };
    assert!(dumpable.starts_with("privilege: promised that it is not dumpable"), "{dumpable}");
    let own = |line: &String| ["Uid:", "Gid:", "Groups:", "NSpid:"].iter().any(|wall| line.starts_with(wall));
    let (mut now, mut usual) = (walls(pid), walls(before.process.pid()));
    println!("{now:#?}");
    assert!(now.len() >= WALLS.len() - 1, "the kernel shows too little");
    assert!(now.iter().any(|line| line == "CapBnd:\t0000000000000000"));
    assert!(now.iter().any(|line| line == "Seccomp:\t2"));
    // What each Worker has of its own; the inspection has seen to these.
    now.retain(|line| !own(line));
    usual.retain(|line| !own(line));
    assert_eq!(now, usual);
    // 1000 inside, nobody else's outside.
    let ids = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(ids[0] == 1000 && ids[1] >= 1_000_000_000 && ids[2..] == [1], "{ids:?}");
    let ended = held.end().await;
    assert!(ended.errors.contains("GNU C Library"), "{ended:?}");
    assert_eq!(ended.exit.status, ExitStatus::Code(0));
}

#[tokio::test]
async fn harmless_files_work() {
    all_worked(&Cell::new("files_twin").probes().await);
    all_worked(&Cell::new("files_twin").contract(Contract::Ipc).probes().await);
    all_worked(&Cell::new("files_twin").dynamic().probes().await);
}

/// The kernel's own landlock cases.
#[tokio::test]
async fn nothing_moves_between_folders_of_other_rights() {
    for cell in [Cell::new("landlock"), Cell::new("landlock").contract(Contract::Ipc)] {
        let mut findings = cell.probes().await;
        if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() {
            findings.retain(|finding| !finding.name.starts_with("port: "));
        }
        all_refused(&findings);
    }
    all_worked(&Cell::new("landlock_twin").probes().await);
    all_worked(&Cell::new("landlock_twin").contract(Contract::Ipc).probes().await);
}

/// Two at a time: neither sees what the other writes, nor under which name its program lies.
#[tokio::test]
async fn each_has_a_tmp_of_its_own() {
    let folder = crate::cell::stored("listener", false);
    let mut first = Cell::new("tmp").arg("write").start().await;
    assert_eq!(first.line().await.as_deref(), Some("written"));
    let second = Cell::new("tmp").arg("look").arg(folder.display()).run().await;
    assert_eq!(second.lines, ["nothing"], "{second:?}");
    assert!(first.process.exit().is_none());
    // The twin: who wrote it finds it.
    let itself = Cell::new("tmp").arg("both").run().await;
    assert_eq!(itself.lines, ["written", "/tmp/secret"]);
}
