//! Files: nothing of the host, of other Workers, of itself; only its own /tmp.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

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
