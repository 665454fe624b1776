//! What a child does, from clone to exec.
//!
//! It is a copy of the launcher, and from its first step on uses none of the launcher's
//! descriptors but its end of the start socket and the cgroup files it enters by.

mod archive;

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cloister_ipc::launch::{
    CgroupLimit, Failure, FromBlank, MountEnforced, Spec, Stage, Start, ToBlank, WORKER_PORT, Wall,
};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use cloister_sys::FreshChild;
use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::net::{Ipv4Addr, SocketAddrV4, bind, listen};

use crate::failure::{at, wall};
use crate::walls::{
    Arguments, Entering, Given, INSIDE_ID, Outside, Raising, START_FD, Sockets, Writable, stage, tcp,
};

/// What the launcher prepared for a child.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    /// The child's end of the start socket.
    pub(crate) start: OwnedFd,
    /// Its way into its cgroup.
    pub(crate) cgroup: Entering,
    /// Its cgroup limits, read back.
    pub(crate) limits: Vec<CgroupLimit>,
    /// What is mounted in the template root it is in.
    pub(crate) mounts: &'a [MountEnforced],
    /// The host's `/proc`, the launcher's descriptor.
    pub(crate) proc: BorrowedFd<'a>,
    /// The launcher's namespaces.
    pub(crate) namespaces: Vec<u64>,
    /// The launcher's own filter.
    pub(crate) filter: Vec<u8>,
    pub(crate) spec: &'a Spec,
    pub(crate) waived: &'a [Wall],
}

/// Ends the process when a bug unwinds: the parent's stack and its destructors are not ours.
struct EndOnUnwind;

impl Drop for EndOnUnwind {
    fn drop(&mut self) {
        cloister_sys::exit(101);
    }
}

/// Everything from clone on. Says on the start socket what went wrong, and ends.
pub(crate) fn run(child: FreshChild, prepared: Prepared<'_>) -> ! {
    let _end = EndOnUnwind;
    let (start, outside) = match settle(&child, &prepared) {
        Ok(settled) => settled,
        Err(failure) => fail(prepared.start.as_fd(), failure),
    };
    match live(child, prepared, start, outside) {
        Ok(Some(never)) => match never {},
        Ok(None) => cloister_sys::exit(0), // nobody has use for it
        Err(failure) => fail(start, failure),
    }
}

fn fail(start: BorrowedFd<'_>, failure: Failure) -> ! {
    // When even this can't be said, the socket's end is the message.
    let _ = say(start, &FromBlank::Failed(failure));
    cloister_sys::exit(1)
}

/// Lets go of everything that is the launcher's. The start socket gets its number.
fn settle(child: &FreshChild, prepared: &Prepared<'_>) -> Result<(BorrowedFd<'static>, Outside), Failure> {
    cloister_sys::set_parent_death_kill().map_err(at(Stage::Setup, "prctl(PR_SET_PDEATHSIG)"))?;
    cloister_sys::unblock_signals(child).map_err(at(Stage::Setup, "unblocking signals"))?;
    // The launcher's process group reaches across pid namespaces: kill(0, …) must not.
    rustix::process::setsid().map_err(at(Stage::Setup, "setsid"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let start = cloister_sys::place(child, prepared.start.as_fd(), START_FD, true)
        .map_err(wall(Wall::Descriptors, "placing the start socket"))?;
    let outside = Outside::open(prepared.proc, prepared.namespaces.clone())
        .map_err(wall(Wall::Namespaces, "opening its own /proc/self/ns"))?;
    let mut keep = vec![start];
    keep.extend(outside.descriptors());
    if let Entering::Writes(files) = &prepared.cgroup {
        keep.extend(files.iter().map(AsFd::as_fd));
    }
    child.close_all_but(&keep).map_err(wall(Wall::Descriptors, "close_range"))?;
    for number in 0..3 {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())
            .map_err(wall(Wall::Descriptors, "opening /dev/null"))?;
        cloister_sys::keep(child, null, number).map_err(wall(Wall::Descriptors, "placing /dev/null"))?;
    }
    Ok((start, outside))
}

/// The walls that don't depend on the Worker, then the wait for one. `None`: there will be none.
fn live(
    child: FreshChild,
    prepared: Prepared<'_>,
    socket: BorrowedFd<'static>,
    outside: Outside,
) -> Result<Option<Infallible>, Failure> {
    let Prepared { start, cgroup, limits, mounts, filter, spec, waived, .. } = prepared;
    cloister_sys::disown(&child, start); // closed with the launcher's; START_FD is the copy
    let mut buffer = vec![0; LAUNCH_BYTES];
    let Some((ToBlank::Enter, _)) = hear(socket, &mut buffer)? else { return Ok(None) };
    let (walls, app) = Raising::new(child, waived, filter)
        .enter_cgroup(cgroup, limits)?
        .enter_namespaces(outside)?
        .enter_root(spec, mounts)?;
    let (walls, sockets) = walls.make_network(spec.network)?;
    let walls = walls.limit_resources(spec)?.drop_privileges(spec)?.filter(&spec.base)?;
    say_ready(socket, sockets)?;
    match hear(socket, &mut buffer)? {
        Some((ToBlank::Start(start), descriptors)) => {
            become_worker(walls, app, spec, &start, descriptors).map(Some)
        }
        Some((ToBlank::Enter, _)) => Err(protocol("entered twice")),
        None => Ok(None),
    }
}

fn become_worker(
    walls: Raising<stage::Filtered>,
    app: Writable,
    spec: &Spec,
    start: &Start,
    descriptors: Vec<OwnedFd>,
) -> Result<Infallible, Failure> {
    let mut given = Given::take(start, descriptors)?;
    if let Some(port) = start.listen {
        given.third = Some(listener(port)?);
    }
    match (given.files.take(), app) {
        (Some(files), Writable(Some(app))) => archive::unpack(File::from(files), &app)?,
        (None, _) => {}
        (Some(_), Writable(None)) => return Err(protocol("files without a folder for them")),
    }
    let arguments = Arguments::new(start)?;
    let walls = walls.landlock(spec, start, given.binary.as_fd())?;
    let (walls, socket) = walls.close_descriptors(given, start.files)?;
    say(socket, &walls.report(&start.last)).map_err(at(Stage::Protocol, "telling what was enforced"))?;
    walls.exec(&start.last, &arguments)
}

/// A listening socket for a Worker that inherits one (blocking, as servers expect).
fn listener(port: u16) -> Result<OwnedFd, Failure> {
    let failed = |what: &str| wall(Wall::Network, what.to_owned());
    let socket = tcp().map_err(failed("making the listening socket"))?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)).map_err(failed("binding it"))?;
    listen(&socket, 1024).map_err(failed("listening on it"))?;
    rustix::io::ioctl_fionbio(&socket, false).map_err(failed("making it blocking"))?;
    rustix::io::fcntl_dupfd_cloexec(&socket, 64).map_err(failed("parking it"))
}

fn say_ready(socket: BorrowedFd<'_>, sockets: Sockets) -> Result<(), Failure> {
    let failed = at::<io::Error>(Stage::Protocol, "saying that the blank is ready");
    let record = encode(&FromBlank::Ready)?;
    let descriptors: Vec<_> = sockets.0.iter().map(AsFd::as_fd).collect();
    descriptors::send(socket, &record, &descriptors).map_err(failed)
}

fn say(socket: BorrowedFd<'_>, message: &FromBlank) -> io::Result<()> {
    let record = encode(message).map_err(io::Error::other)?;
    descriptors::send(socket, &record, &[])
}

fn encode(message: &FromBlank) -> Result<Vec<u8>, Failure> {
    codec::encode(message, LAUNCH_BYTES).map_err(io::Error::other).map_err(at(Stage::Protocol, "encoding"))
}

fn hear(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Option<(ToBlank, Vec<OwnedFd>)>, Failure> {
    let received = loop {
        match descriptors::receive(socket, buffer) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            other => break other,
        }
    };
    let (length, descriptors) = match received {
        Err(error) if error.raw_os_error() == Some(libc::ECONNRESET) => return Ok(None),
        other => other.map_err(at(Stage::Protocol, "waiting on the start socket"))?,
    };
    if length == 0 {
        return Ok(None);
    }
    let message = codec::decode(buffer.get(..length).unwrap_or_default(), LAUNCH_BYTES)
        .map_err(|error| protocol(&error.to_string()))?;
    Ok(Some((message, descriptors)))
}

fn protocol(what: &str) -> Failure {
    Failure { stage: Stage::Protocol, errno: libc::EPROTO, what: what.into() }
}

// A Worker's port and the id inside are the launcher's business only through these.
const _: () = assert!(WORKER_PORT > 1024 && INSIDE_ID != 0);
