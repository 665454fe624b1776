//! Making a blank.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use cloister_ipc::launch::{BlankId, FILTER_BYTES, Failure, SOCKETS, Spec, Stage, ToBlank, Wall};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use cloister_sys::{Cloned, Namespaces, clone};
use rustix::fs::{Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::blanks::Blanks;
use super::machine::Host;
use crate::blank::{self, Prepared};
use crate::cgroup::Entry;
use crate::failure::{at, wall};
use crate::walls::{Entering, INSIDE_ID};

/// A blank that was made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) pid: i32,
    pub(super) uid: u32,
    /// The supervisor's end of its start socket.
    pub(super) start: OwnedFd,
}

/// Makes a blank; it raises its walls by itself from here on.
pub(super) fn make(
    host: &Host,
    blanks: &mut Blanks,
    waived: &[Wall],
    blank: BlankId,
    spec: &Spec,
) -> Result<Made, Failure> {
    blanks.claim(blank)?;
    check(spec)?;
    let uid = blanks.uid()?;
    host.identity.while_mapping(|| bear(host, blanks, waived, (blank, uid), spec))
}

/// From the cgroup's folder to a child that may go on.
fn bear(
    host: &Host,
    blanks: &mut Blanks,
    waived: &[Wall],
    (blank, uid): (BlankId, u32),
    spec: &Spec,
) -> Result<Made, Failure> {
    let born = host.cgroups.make(blank, &spec.cgroup).and_then(|(entry, limits)| {
        let mounts = host
            .templates
            .enter(spec.libraries, spec.proc)
            .map_err(wall(Wall::Root, "entering a template root"))?;
        give_birth(entry, |start, cgroup| Prepared {
            start,
            cgroup,
            limits,
            mounts,
            proc: host.proc.as_fd(),
            namespaces: host.namespaces.clone(),
            filter: host.filter.clone(),
            spec,
            waived,
        })
    });
    let (pid, start) = match born {
        Ok(born) => born,
        Err(failure) => {
            blanks.give_back(uid);
            blanks.remove_folder(&host.cgroups, blank);
            return Err(failure);
        }
    };
    blanks.born(blank, pid, uid, spec.libraries);
    // From here on a failure must end the child, whose reaping settles the rest.
    let entered = map_ids(host, pid, uid).and_then(|()| {
        let enter = codec::encode(&ToBlank::Enter, LAUNCH_BYTES).map_err(io::Error::other);
        enter.and_then(|enter| descriptors::send(&start, &enter, &[])).map_err(at(Stage::Clone, "entering"))
    });
    match entered {
        Ok(()) => Ok(Made { pid, uid, start }),
        Err(failure) => {
            blanks.kill(blank);
            Err(failure)
        }
    }
}

/// What a supervisor may ask for, however it came to ask.
fn check(spec: &Spec) -> Result<(), Failure> {
    let sockets = spec.network.map_or(0, |network| network.sockets);
    let wrong = [
        (spec.base.is_empty() || spec.base.len() > FILTER_BYTES, "the length of the filter"),
        (sockets >= SOCKETS, "the number of sockets"),
        (spec.tmp_bytes == 0, "the size of /tmp"),
        (spec.cgroup.memory_bytes == 0 || spec.cgroup.pids == 0, "memory or pids of the cgroup"),
        (spec.cgroup.cpu_percent == 0 || spec.cgroup.cpu_weight == 0, "cpu of the cgroup"),
    ];
    match wrong.iter().find(|(wrong, _)| *wrong) {
        Some((_, what)) => {
            let what = format!("{what} is out of its bounds");
            Err(Failure { stage: Stage::Protocol, errno: nix::libc::EINVAL, what })
        }
        None => Ok(()),
    }
}

/// The clone. What the child needs is made of its end of the start socket and its cgroup's files.
fn give_birth<'a>(
    entry: Entry,
    prepare: impl FnOnce(OwnedFd, Entering) -> Prepared<'a>,
) -> Result<(i32, OwnedFd), Failure> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(at(Stage::Clone, "making the start socket"))?;
    match clone(Namespaces::All, entry.folder()).map_err(at(Stage::Clone, "clone3"))? {
        Cloned::Parent(pid) => Ok((pid, ours)),
        Cloned::Child(child) => {
            let cgroup = match entry {
                Entry::Write(files) => Entering::Writes(files),
                Entry::Clone(folder) => {
                    cloister_sys::disown(&child, folder);
                    Entering::Cloned
                }
            };
            cloister_sys::disown(&child, ours);
            blank::run(child, prepare(theirs, cgroup))
        }
    }
}

/// The child's only uid and gid: 1000 inside, `uid` outside.
fn map_ids(host: &Host, pid: i32, uid: u32) -> Result<(), Failure> {
    let uid = host.identity.inside(uid);
    for map in ["uid_map", "gid_map"] {
        let name = format!("{pid}/{map}");
        openat(host.proc.as_fd(), &name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(format!("{INSIDE_ID} {uid} 1").as_bytes()))
            .map_err(wall(Wall::OwnUid, format!("writing /proc/{name}")))?;
    }
    Ok(())
}
