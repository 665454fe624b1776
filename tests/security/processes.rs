//! Processes: none but its own, no more rights than none, no code but its own.

use cloister_supervisor::registry::{Allow, Contract};

use crate::cell::{Cell, Finding, Outcome, all_refused, all_worked, outcome, without};

async fn attack(cell: Cell) -> Vec<Finding> {
    cell.arg(std::process::id()).probes().await
}

#[tokio::test]
async fn http_worker_reaches_no_process() {
    all_refused(&attack(Cell::new("processes")).await);
}

#[tokio::test]
async fn ipc_worker_reaches_no_process() {
    all_refused(&attack(Cell::new("processes").contract(Contract::Ipc)).await);
}

#[tokio::test]
async fn with_processes_it_only_forks() {
    let findings = attack(Cell::new("processes").allow(Allow::Processes)).await;
    let granted = ["fork", "clone without CLONE_THREAD", "clone as vfork", "clone with high bits"];
    for name in granted {
        assert!(matches!(outcome(&findings, name), Outcome::Ok(_)), "{name}");
    }
    // With children about, it is not alone any more, and sees them.
    let own = ["kill every other process", "it is alone"];
    all_refused(&without(without(findings, &granted), &own));
}

#[tokio::test]
async fn with_jit_only_memory_changes() {
    let findings = attack(Cell::new("processes").allow(Allow::Jit)).await;
    let granted = [
        "mmap writable and executable",
        "mmap anonymous executable",
        "mprotect executable",
        "pkey_mprotect executable",
        "executable stack",
        "writable code",
        "code made writable, then executable again",
    ];
    for name in granted {
        assert!(matches!(outcome(&findings, name), Outcome::Ok(_)), "{name}");
    }
    all_refused(&without(findings, &granted));
}

#[tokio::test]
async fn harmless_processes_work() {
    all_worked(&Cell::new("processes_twin").probes().await);
    all_worked(&Cell::new("processes_twin").contract(Contract::Ipc).probes().await);
}
