//! One start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloister_ipc::launch::{Enforced, FromBlank, ToBlank, ToLauncher};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use nix::time::ClockId;
use nix::unistd::Pid;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::sync::watch;

use super::client::{encode_start, protocol, set_nonblocking};
use super::plan::Plan;
use super::process::Killer;
use super::reactor::register;
use super::ready::{Blank, Taken};
use super::{Exit, Launcher, Net, Process, StartError, Walls};
use crate::registry::Deployed;

/// How long after a blank was taken others are made in its place: a start has the machine to itself until then.
const FILL_AFTER: Duration = Duration::from_millis(5);

impl Launcher {
    /// Takes a waiting blank, or has one made, and starts the version in it. When this future is
    /// dropped the process is killed.
    pub async fn start(&self, deployed: &Arc<Deployed>) -> Result<Process, StartError> {
        match tokio::time::timeout(self.start_timeout, self.start_now(deployed)).await {
            Ok(started) => started,
            Err(_) => Err(StartError::Timeout(self.start_timeout)),
        }
    }

    async fn start_now(&self, deployed: &Deployed) -> Result<Process, StartError> {
        let plan = Plan::new(deployed, &self.filters)?;
        let blank = self.take_blank(&plan).await?;
        let killer = Killer { blank: blank.id, commands: self.commands.clone(), exit: blank.exit.clone() };
        let ends = Ends::new(plan.start.control)?;
        // Asked for while it surely lives: a binary may be over before we hear of its exec.
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(blank.pid));
        let enforced = run(blank.start, &plan, &ends, blank.exit).await?;
        let net = plan.spec.network.map(|_| Net {
            blank: blank.id,
            sockets: blank.sockets,
            listener: Arc::new(std::sync::Mutex::new(blank.listener)),
            commands: self.commands.clone(),
        });
        let clock = clock.map_err(|error| StartError::io("the process's CPU clock")(error.into()))?;
        let walls = Walls {
            pid: blank.pid,
            uid: blank.uid,
            machine: (*self.machine).clone(),
            enforced,
            cgroup: plan.spec.cgroup,
            tmp_bytes: plan.spec.tmp_bytes,
        };
        let memory = self.machine.memory_folder.as_ref().map(|folder| {
            Path::new(folder).join(blank.id.to_string()).join(self.machine.cgroup.memory_file())
        });
        Ok(Process {
            pid: blank.pid,
            clock,
            killer,
            control: ends.ours.2,
            output: Some((ends.ours.0, ends.ours.1)),
            net,
            walls: Arc::new(walls),
            memory,
            ready: Arc::clone(&self.ready),
        })
    }

    async fn take_blank(&self, plan: &Plan) -> Result<Blank, StartError> {
        let (taken, fill) = self.ready.take(&plan.spec, |order| self.order(order))?;
        if fill {
            let (launcher, spec) = (self.clone(), Arc::clone(&plan.spec));
            tokio::spawn(async move {
                tokio::time::sleep(FILL_AFTER).await;
                launcher.ready.fill(&spec, |order| launcher.order(order));
            });
        }
        match taken {
            Taken::Blank(blank) => Ok(blank),
            Taken::Place(line) => {
                line.await.unwrap_or_else(|_| Err(StartError::LauncherGone("it ended".into())))
            }
        }
    }

    fn order(&self, order: ToLauncher) {
        // A closed channel is noticed by whoever waits: the launcher is gone.
        let _ = self.commands.send(order);
    }
}

/// The descriptors of one process: the supervisor's, and those it is given.
struct Ends {
    ours: (OwnedFd, OwnedFd, Option<OwnedFd>),
    theirs: Vec<OwnedFd>,
}

impl Ends {
    fn new(control: bool) -> Result<Self, StartError> {
        let what = "making a Worker's pipes";
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| StartError::io(what)(error.into()));
        let (out, out_theirs) = pipe()?;
        let (err, err_theirs) = pipe()?;
        set_nonblocking(&out).and_then(|()| set_nonblocking(&err)).map_err(StartError::io(what))?;
        let mut theirs = vec![out_theirs, err_theirs];
        let mut ours = (out, err, None);
        if control {
            let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            let (mine, its) = pair.map_err(|error| StartError::io(what)(error.into()))?;
            // Nothing, and no descriptor, is ever taken from a Worker on this socket.
            shutdown(&mine, Shutdown::Read).map_err(|error| StartError::io(what)(error.into()))?;
            set_nonblocking(&mine).map_err(StartError::io(what))?;
            ours.2 = Some(mine);
            theirs.push(its);
        }
        Ok(Self { ours, theirs })
    }
}

/// Tells the blank what it becomes and waits until it is that.
async fn run(
    socket: OwnedFd,
    plan: &Plan,
    ends: &Ends,
    mut exit: watch::Receiver<Option<Exit>>,
) -> Result<Enforced, StartError> {
    let what = "talking to a blank";
    let socket = register(socket, Interest::READABLE | Interest::WRITABLE).map_err(StartError::io(what))?;
    let record = encode_start(ToBlank::Start(plan.start.clone()))?;
    let fds: Vec<_> =
        std::iter::once(&plan.binary).chain(&ends.theirs).chain(&plan.files).map(AsFd::as_fd).collect();
    socket
        .async_io(Interest::WRITABLE, |socket| descriptors::send(socket, &record, &fds))
        .await
        .map_err(StartError::io(what))?;
    let mut raised = None;
    let mut buffer = vec![0; LAUNCH_BYTES];
    loop {
        let (length, _) = socket
            .async_io(Interest::READABLE, |socket| descriptors::receive(socket, &mut buffer))
            .await
            .map_err(StartError::io(what))?;
        if length == 0 {
            break;
        }
        match codec::decode(buffer.get(..length).unwrap_or_default(), LAUNCH_BYTES) {
            Ok(FromBlank::Raised { enforced, filters }) => raised = Some(plan.attest(*enforced, &filters)?),
            Ok(FromBlank::Failed(failure)) => return Err(StartError::Failed(failure)),
            Ok(FromBlank::Ready) => return Err(protocol("a blank was ready twice")),
            Err(error) => return Err(protocol(&error.to_string())),
        }
    }
    match raised {
        Some(enforced) => Ok(enforced),
        None => {
            let known = exit.wait_for(Option::is_some).await;
            Err(StartError::Died(known.ok().and_then(|exit| *exit).unwrap_or(Exit::LOST)))
        }
    }
}
