//! Children of a run: started with a log, waited for until they answer, ended with the run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::client::Address;
use crate::context::{Context, Failure};

/// A running child. Dropping it ends it: SIGTERM, and SIGKILL when its patience is over.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    patience: Duration,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in the run's folder. It dies with this
    /// process, however that ends.
    pub(crate) fn start(context: &Context, name: &str, command: &Command) -> Result<Self, Failure> {
        let log = context.file(&format!("{name}.log"));
        let out = File::create(&log)?;
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "TERM", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => bound.env(key, value),
                None => bound.env_remove(key),
            };
        }
        bound.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child =
            bound.spawn().map_err(|error| format!("{name}: can't start setpriv (util-linux): {error}"))?;
        Ok(Self { name: name.into(), child, log, patience: Duration::from_secs(5) })
    }

    /// How long it may take to end before it is killed.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The name it was started under.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The child's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `address` takes a connection.
    pub(crate) fn ready(&mut self, address: &Address, most: Duration) -> Result<(), Failure> {
        let end = Instant::now() + most;
        loop {
            if address.connect().is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(
                    format!("{} ended ({status}) before it listened:\n{}", self.name, self.tail()).into()
                );
            }
            if Instant::now() > end {
                return Err(format!(
                    "{} does not listen on {address} after {most:?}:\n{}",
                    self.name,
                    self.tail()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The last lines it printed.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }

    fn wait(&mut self, most: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + most;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let pid = nix::unistd::Pid::from_raw(pid);
            // Already gone is as good.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        }
        if self.wait(self.patience).is_none() {
            eprintln!("{} did not end within {:?} of SIGTERM: killed", self.name, self.patience);
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}

/// A TCP port of 127.0.0.1 that nobody uses at the moment.
pub(crate) fn free_port() -> Result<u16, Failure> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
