//! The bare hyper server on TCP, and the same on a Unix socket as the proxies' upstream.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{Running, Target};
use crate::client::Address;
use crate::context::{Context, Failure};
use crate::process::{Process, free_port};

pub(super) const BARE: &str = "bare hyper";
const START: Duration = Duration::from_secs(10);

pub(super) fn start(context: &Context) -> Result<Running, Failure> {
    let port = free_port()?;
    let target = Target::new(BARE, port);
    let command = command(context, &format!("tcp:127.0.0.1:{port}"))?;
    let mut process = Process::start(context, "hyper", &command)?;
    process.ready(&target.address, START)?;
    Ok(Running::new(vec![target], vec![process]))
}

/// An upstream on a Unix socket that anybody may reach.
pub(super) fn upstream(context: &Context, name: &str, socket: &Path) -> Result<Process, Failure> {
    // Left by an earlier round.
    drop(std::fs::remove_file(socket));
    let command = command(context, &format!("unix:{}", socket.display()))?;
    let mut process = Process::start(context, name, &command)?;
    process.ready(&Address::Unix(socket.into()), START)?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    Ok(process)
}

fn command(context: &Context, place: &str) -> Result<Command, Failure> {
    let mut command = Command::new(context.binary("bench-hyper")?);
    command.arg(place);
    Ok(command)
}
