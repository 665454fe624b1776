//! Files: nothing of the host, of other Workers, of itself; only its own /tmp.

use cloister_supervisor::registry::{Allow, Contract};

use crate::cell::{Cell, Finding, Outcome, all_refused, all_worked, outcome};

async fn attack(cell: Cell) -> Vec<Finding> {
    let secret = tempfile::NamedTempFile::new().unwrap();
    // An account of the host.
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let account = accounts.lines().last().unwrap();
    cell.arg(secret.path().display()).arg(account).probes().await
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
    let others: Vec<_> =
        findings.into_iter().filter(|finding| finding.name != "no descriptor but 0, 1, 2").collect();
    all_refused(&others);
}

#[tokio::test]
async fn a_waiver_opens_no_file() {
    all_refused(&attack(Cell::new("files").allow(Allow::Processes)).await);
}

#[tokio::test]
async fn harmless_files_work() {
    all_worked(&Cell::new("files_twin").probes().await);
    all_worked(&Cell::new("files_twin").contract(Contract::Ipc).probes().await);
}
