//! A hostile user Worker: tries what it must not do, and tells what came of it.
#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use cloister::{Body, Context, Env, Request, Response};
use serde_json::{Map, Value, json};

fn tried<T>(result: io::Result<T>) -> Value {
    match result {
        Ok(_) => json!("succeeded"),
        Err(error) => json!(format!("refused: {error}")),
    }
}

/// A Worker is given an /etc/passwd of its own, with one nameless account; the host's has root.
fn host_accounts() -> io::Result<String> {
    let text = fs::read_to_string("/etc/passwd")?;
    if text.contains("root:") {
        return Ok(text);
    }
    Err(io::Error::other(format!("not the host's file, but a made-up one: {}", text.trim_end())))
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_millis(500))
}

async fn intrude(request: Request, _env: Env, _context: Context) -> Response {
    // A listener of the host's own loopback, given by the demo.
    let host = request.uri().query().unwrap_or("127.0.0.1:22");
    let mut report = Map::new();
    report.insert("read /etc/passwd".into(), tried(host_accounts()));
    report.insert("read /etc/shadow".into(), tried(fs::read("/etc/shadow")));
    report.insert("list other processes".into(), tried(fs::read_dir("/proc")));
    report.insert(format!("connect to the host's {host}"), tried(connect(host)));
    report.insert("connect to the internet".into(), tried(connect("1.1.1.1:80")));
    report.insert("run another program".into(), tried(Command::new("/bin/sh").spawn()));
    report.insert("write to the root".into(), tried(fs::write("/planted", "x")));
    Response::new(Body::from(Value::Object(report).to_string()))
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(intrude)
}
