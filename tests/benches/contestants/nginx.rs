//! nginx, one worker process, keep-alive to a hyper upstream on a Unix socket.

use std::process::Command;
use std::time::Duration;

use super::{Running, Target, hyper};
use crate::context::{Context, Failure};
use crate::process::{Process, free_port};

pub(super) const HOP: &str = "nginx -> hyper";

pub(super) fn start(context: &Context) -> Result<Running, Failure> {
    let program = context.peer("nginx")?;
    let port = free_port()?;
    let socket = context.file("nginx-upstream.sock");
    let upstream = hyper::upstream(context, "nginx-upstream", &socket)?;
    let folder = context.work.path().display();
    let upstream_socket = socket.display();
    // Logging off, bodies not spooled to disk: nginx at its best for this work.
    let text = format!(
        "daemon off; master_process on; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; server_tokens off;
  keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 2m;
  client_body_temp_path {folder}/nginx-body; proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-f; uwsgi_temp_path {folder}/nginx-u; scgi_temp_path {folder}/nginx-s;
  upstream worker {{ server unix:{upstream_socket}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_buffers 64 32k; proxy_busy_buffers_size 64k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"
    );
    let config = context.file("nginx.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new(program);
    command
        .arg("-e")
        .arg(context.file("nginx-start.log"))
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(context.work.path());
    let target = Target::new(HOP, port);
    let mut process = Process::start(context, "nginx", &command)?;
    process.ready(&target.address, Duration::from_secs(10))?;
    Ok(Running { targets: vec![target], processes: vec![upstream, process] })
}
