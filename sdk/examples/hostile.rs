//! A tenant that tries to get out, and reports how far it came, as JSON:
//! `[{"attempt": "read /etc/passwd", "refused": true, "result": "No such file or directory (os error 2)"}, …]`.
//!
//! Behind the walls everything is refused but the last, which every Worker may. It harms nobody
//! where there are no walls: it only looks.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use std::{fs, io};

use cloister::{Body, Context, Env, Request};
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    attempt: &'static str,
    refused: bool,
    result: String,
}

/// One attempt: what it is called, and how to make it. What it brings back is for the report.
type Attempt = (&'static str, fn() -> io::Result<String>);

const ATTEMPTS: &[Attempt] = &[
    ("read /etc/passwd", || Ok(format!("{} bytes", fs::read("/etc/passwd")?.len()))),
    ("read its host's secrets", || Ok(format!("{} bytes", fs::read("/etc/shadow")?.len()))),
    ("list /home", || list("/home")),
    ("list other processes in /proc", || list("/proc")),
    ("write its own binary's folder", || fs::write("/pwned", "x").map(|()| "written".to_owned())),
    ("connect out by itself", || connect("192.0.2.1:80")),
    ("connect to the metadata address", || connect("169.254.169.254:80")),
    ("connect to the host's own services", || connect("127.0.0.1:8787")),
    ("listen on the network", || Ok(TcpListener::bind("0.0.0.0:0")?.local_addr()?.to_string())),
    ("send a datagram", || {
        let sent = UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", "192.0.2.1:53")?;
        Ok(format!("{sent} bytes"))
    }),
    ("start a shell", || Ok(Command::new("/bin/sh").args(["-c", "id"]).output()?.status.to_string())),
    ("start itself again", || Ok(Command::new(std::env::current_exe()?).output()?.status.to_string())),
    ("write and read its own /tmp (allowed)", || {
        fs::write("/tmp/note", "mine")?;
        fs::read_to_string("/tmp/note")
    }),
];

fn list(folder: &str) -> io::Result<String> {
    Ok(format!("{} entries", fs::read_dir(folder)?.count()))
}

fn connect(address: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    TcpStream::connect_timeout(&address, Duration::from_millis(200))?;
    Ok("connected".to_owned())
}

fn report(&(attempt, make): &Attempt) -> Report {
    match make() {
        Ok(result) => Report { attempt, refused: false, result },
        Err(error) => Report { attempt, refused: true, result: error.to_string() },
    }
}

fn main() -> Result<(), cloister::Error> {
    cloister::run(|_request: Request, _env: Env, _ctx: Context| async {
        let reports: Vec<Report> = ATTEMPTS.iter().map(report).collect();
        let json = serde_json::to_string_pretty(&reports)?;
        http::Response::builder()
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Body::from(json))
            .map_err(cloister::BoxError::from)
    })
}
