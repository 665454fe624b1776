//! Kernel doors: everything a server never uses is shut.

use cloister_supervisor::registry::{Allow, Contract};

use crate::cell::{Cell, all_refused, all_worked};

#[tokio::test]
async fn no_door_opens() {
    all_refused(&Cell::new("doors").probes().await);
}

#[tokio::test]
async fn no_door_opens_for_ipc() {
    all_refused(&Cell::new("doors").contract(Contract::Ipc).probes().await);
}

#[tokio::test]
async fn no_door_opens_with_waivers() {
    let cell = Cell::new("doors").allow(Allow::Processes).allow(Allow::Jit).allow(Allow::Proc);
    all_refused(&cell.probes().await);
}

#[tokio::test]
async fn harmless_calls_work() {
    all_worked(&Cell::new("doors_twin").probes().await);
    all_worked(&Cell::new("doors_twin").contract(Contract::Ipc).probes().await);
}
