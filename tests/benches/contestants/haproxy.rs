//! haproxy, one thread, connections to a hyper upstream on a Unix socket reused.

use std::process::Command;
use std::time::Duration;

use super::{Running, Target, hyper};
use crate::context::{Context, Failure};
use crate::process::{Process, free_port};

pub(super) const HOP: &str = "haproxy -> hyper";

pub(super) fn start(context: &Context) -> Result<Running, Failure> {
    let program = context.peer("haproxy")?;
    let port = free_port()?;
    let socket = context.file("haproxy-upstream.sock");
    let upstream = hyper::upstream(context, "haproxy-upstream", &socket)?;
    let upstream_socket = socket.display();
    let text = format!(
        "global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 10s
  timeout client 60s
  timeout server 60s
frontend front
  bind 127.0.0.1:{port}
  default_backend worker
backend worker
  http-reuse always
  server hyper unix@{upstream_socket}
"
    );
    let config = context.file("haproxy.cfg");
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    command.arg("-q").arg("-db").arg("-f").arg(&config);
    let target = Target::new(HOP, port);
    let mut process = Process::start(context, "haproxy", &command)?;
    process.ready(&target.address, Duration::from_secs(10))?;
    Ok(Running::new(vec![target], vec![upstream, process]))
}
