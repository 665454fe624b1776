//! Network: a Worker alone reaches nothing but its own loopback.

use std::fs::Permissions;
use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use cloister_supervisor::registry::Contract;

use crate::cell::{Cell, Finding, Outcome, all_refused, all_worked, outcome, without};

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
    // Open to everybody: that it is not there must be what keeps it.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
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
    let findings = attack(Cell::new("network")).await;
    all_refused(&findings);
    let by_path = outcome(&findings, "Unix socket of the host by its path");
    assert_eq!(*by_path, Outcome::Errno("ENOENT".into()));
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
    // By landlock, where it has rules for ports, before its own loopback can answer.
    assert!([["EACCES"], ["ECONNREFUSED"]].iter().any(|refused| second.lines == refused), "{second:?}");
    let abstract_one = Cell::new("listener").arg("abstract").run().await;
    assert_eq!(abstract_one.lines, ["ECONNREFUSED"]);
    let itself = Cell::new("listener").arg("both").run().await;
    assert_eq!(itself.lines, ["listening", "ok"]);
    assert!(first.process.exit().is_none());
}

/// Nor does the host, by mistake, reach what a Worker listens on: neither where it may, nor on a port
/// that the kernel chose for it.
#[tokio::test]
async fn the_host_does_not_reach_a_listener() {
    let connect = |port: u16| TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.kind());
    // Something of the host's own may be there.
    let before = connect(8080);
    for way in ["listen", "unbound"] {
        let mut listener = Cell::new("listener").arg(way).start().await;
        let said = listener.line().await.unwrap();
        let port = match said.strip_prefix("listening on ") {
            Some(port) => port.parse().unwrap(),
            None => 8080,
        };
        println!("{way}: {said}");
        let expected = if port == 8080 { before } else { Err(ErrorKind::ConnectionRefused) };
        assert_eq!(connect(port), expected, "{way}");
        let address = SocketAddr::from_abstract_name("cloister-listener").unwrap();
        let hidden = UnixStream::connect_addr(&address).map(drop).map_err(|error| error.kind());
        assert_eq!(hidden, Err(ErrorKind::ConnectionRefused), "{way}");
        assert!(listener.process.exit().is_none());
    }
}

#[tokio::test]
async fn harmless_network_works() {
    all_worked(&Cell::new("network_twin").probes().await);
    // Without sockets of its own, a Worker still has pairs.
    let findings = Cell::new("network_twin").contract(Contract::Ipc).probes().await;
    all_worked(&without(
        findings,
        &["listen on $PORT", "connect to the proxy and talk", "Unix socket in /tmp"],
    ));
}
