//! Network: a Worker alone reaches nothing but its own loopback.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use cloister_supervisor::registry::Contract;

use crate::cell::{Cell, Finding, all_refused, all_worked};

/// Runs the attack beside listeners of the host, on which nothing may arrive.
async fn attack(cell: Cell) -> Vec<Finding> {
    let tcp = TcpListener::bind("0.0.0.0:0").unwrap();
    let name = format!("cloister-security-{}", std::process::id());
    let address =
        SocketAddr::from_abstract_name(format!("{name}-{:?}", std::thread::current().id())).unwrap();
    let hidden = UnixListener::bind_addr(&address).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let visible = UnixListener::bind(&path).unwrap();
    let abstract_name = String::from_utf8(address.as_abstract_name().unwrap().to_vec()).unwrap();
    let cell = cell.arg(tcp.local_addr().unwrap().port()).arg(abstract_name).arg(path.display());
    let findings = cell.probes().await;
    tcp.set_nonblocking(true).unwrap();
    hidden.set_nonblocking(true).unwrap();
    visible.set_nonblocking(true).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "TCP arrived");
    assert_eq!(hidden.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "abstract socket reached");
    assert_eq!(visible.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "Unix socket reached");
    findings
}

#[tokio::test]
async fn http_worker_reaches_no_network() {
    all_refused(&attack(Cell::new("network")).await);
}

#[tokio::test]
async fn ipc_worker_reaches_no_network() {
    all_refused(&attack(Cell::new("network").contract(Contract::Ipc)).await);
}

#[tokio::test]
async fn loopbacks_are_apart() {
    // One that listens and holds, and another that looks for it at the same address.
    let mut first = Cell::new("listener").arg("listen").start().await;
    assert_eq!(first.line().await.as_deref(), Some("listening"));
    let second = Cell::new("listener").arg("connect").run().await;
    assert_eq!(second.lines, ["ECONNREFUSED"]);
    let abstract_one = Cell::new("listener").arg("abstract").run().await;
    assert_eq!(abstract_one.lines, ["ECONNREFUSED"]);
    let itself = Cell::new("listener").arg("both").run().await;
    assert_eq!(itself.lines, ["listening", "ok"]);
    assert!(first.process.exit().is_none());
}

#[tokio::test]
async fn harmless_network_works() {
    all_worked(&Cell::new("network_twin").probes().await);
}
