//! workerd, one process: a Worker asked directly, and one asked through a dispatch Worker.

use std::process::Command;
use std::time::Duration;

use super::{Running, Target};
use crate::context::{Context, Failure};
use crate::process::{Process, free_port};

pub(crate) const HELLO: &str = "workerd";
pub(crate) const DISPATCH: &str = "workerd dispatch -> user";

pub(super) fn start(context: &Context) -> Result<Running, Failure> {
    let (hello, dispatch) = (free_port()?, free_port()?);
    let sockets = [
        ("hello", format!("127.0.0.1:{hello}"), "user"),
        ("dispatch", format!("127.0.0.1:{dispatch}"), "dispatch"),
    ];
    let config = config(context, &sockets)?;
    let mut command = Command::new(context.peer("workerd")?);
    command.arg("serve").arg(&config).arg("config");
    let targets = vec![Target::new(HELLO, hello), Target::new(DISPATCH, dispatch)];
    let mut process = Process::start(context, "workerd", &command)?;
    for target in &targets {
        process.ready(&target.address, Duration::from_secs(20))?;
    }
    Ok(Running::new(targets, vec![process]))
}

/// Writes the configuration for sockets of (name, address, service); gives its path.
pub(crate) fn config(
    context: &Context,
    sockets: &[(&str, String, &str)],
) -> Result<std::path::PathBuf, Failure> {
    std::fs::write(context.file("user.js"), include_str!("user.js"))?;
    std::fs::write(context.file("dispatch.js"), include_str!("dispatch.js"))?;
    let sockets: String = sockets
        .iter()
        .map(|(name, address, service)| {
            format!("(name = \"{name}\", address = \"{address}\", http = (), service = \"{service}\"),")
        })
        .collect();
    let text = format!(
        "using Workerd = import \"/workerd/workerd.capnp\";
const config :Workerd.Config = (
  services = [ (name = \"user\", worker = .user), (name = \"dispatch\", worker = .dispatch) ],
  sockets = [ {sockets} ]
);
const user :Workerd.Worker = (
  modules = [ (name = \"worker\", esModule = embed \"user.js\") ], compatibilityDate = \"2026-01-01\"
);
const dispatch :Workerd.Worker = (
  modules = [ (name = \"worker\", esModule = embed \"dispatch.js\") ], compatibilityDate = \"2026-01-01\",
  bindings = [ (name = \"USER\", service = \"user\") ]
);
"
    );
    let path = context.file("workerd.capnp");
    std::fs::write(&path, text)?;
    Ok(path)
}
