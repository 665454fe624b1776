//! nginx, one worker process, keep-alive to its upstream; logs off, bodies not spooled to disk.

use std::process::Command;
use std::time::Duration;

use super::{Running, Target, hyper};
use crate::context::{Context, Failure};
use crate::process::{Process, free_port};

pub(super) const HOP: &str = "nginx -> hyper";

pub(super) fn start(context: &Context) -> Result<Running, Failure> {
    let port = free_port()?;
    let socket = context.file("nginx-upstream.sock");
    let upstream = hyper::upstream(context, "nginx-upstream", &socket)?;
    let command = command(context, "hop", port, &format!("unix:{}", socket.display()))?;
    let target = Target::new(HOP, port);
    let mut process = Process::start(context, "nginx", &command)?;
    process.ready(&target.address, Duration::from_secs(10))?;
    Ok(Running::new(vec![target], vec![upstream, process]))
}

/// nginx on `port`, handing all to `upstream`; `name` tells its files from another's.
pub(crate) fn command(context: &Context, name: &str, port: u16, upstream: &str) -> Result<Command, Failure> {
    let folder = context.file(&format!("nginx-{name}"));
    std::fs::create_dir_all(&folder)?;
    let at = folder.display();
    let text = format!(
        "daemon off; master_process on; worker_processes 1; pid {at}/pid;
error_log {at}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nodelay on; server_tokens off;
  keepalive_requests 1000000000; client_max_body_size 0; client_body_buffer_size 2m;
  client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
  fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
  upstream worker {{ server {upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection \"\";
      proxy_buffer_size 128k; proxy_buffers 4 128k; proxy_busy_buffers_size 256k; proxy_max_temp_file_size 0;
    }}
  }}
}}
"
    );
    let config = folder.join("nginx.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new(context.peer("nginx")?);
    command.arg("-e").arg(folder.join("start.log")).arg("-c").arg(&config).arg("-p").arg(&folder);
    Ok(command)
}
