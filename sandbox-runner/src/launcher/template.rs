//! Template roots: mount namespaces that a child's is a copy of.
//!
//! Each is a read-only tmpfs with device nodes and a few texts; some also have the host's libraries
//! (read-only), some a `/proc`. That one belongs to a pid namespace that is dead: it shows nothing,
//! and is there because the kernel lets a user namespace mount its own only where one is visible.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cloister_ipc::launch::{Failure, MountEnforced, Stage, Wall};
use cloister_sys::{Cloned, Namespaces};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};
use rustix::fs::OFlags;

use super::machine::open;
use crate::failure::{at, wall};

/// Where a root is built before it becomes one; a folder every host has.
const PLACE: &str = "/tmp";

/// Device nodes: name and minor number of major 1 (mem(4)).
const DEVICES: [(&str, u64); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];

/// Folders of the loader and the libraries.
const LIBRARIES: [&str; 5] = ["usr/lib", "usr/lib64", "lib", "lib64", "lib32"];

/// Texts that programs look for, the same for every Worker.
const TEXTS: [(&str, &str); 4] = [
    ("etc/passwd", "worker:x:1000:1000::/tmp:/nonexistent\n"),
    ("etc/group", "worker:x:1000:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];

/// Files of the host that are copied when there are any: public certificates, and the loader's
/// cache.
const COPIES: [&str; 2] = ["etc/ssl/certs/ca-certificates.crt", "etc/ld.so.cache"];

/// One template root.
#[derive(Debug)]
struct Root {
    namespace: OwnedFd,
    mounts: Vec<MountEnforced>,
}

/// The template roots.
#[derive(Debug)]
pub(super) struct Templates {
    bare: Root,
    with_libraries: Root,
    /// A host whose own `/proc` is covered in parts (a container's) allows none.
    with_proc: Result<[Root; 2], i32>,
}

impl Templates {
    /// Builds all of them; the process ends up in the barest one, and no longer sees the host.
    pub(super) fn build(proc: BorrowedFd<'_>) -> Result<Self, Failure> {
        // A copy of the host's that is the launcher's own, and so can be copied again.
        unshare(CloneFlags::CLONE_NEWNS).map_err(wall(Wall::Root, "unshare(CLONE_NEWNS)"))?;
        let host = open("/proc/self/ns/mnt").map_err(at(Stage::Setup, "opening its mount namespace"))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let failed = || wall::<io::Error>(Wall::Root, "building a template root");
        let bare = build(&host, proc, false, false).map_err(failed())?;
        let with_libraries = build(&host, proc, true, false).map_err(failed())?;
        let with_proc = build(&host, proc, false, true)
            .and_then(|bare| Ok([bare, build(&host, proc, true, true)?]))
            .map_err(|error| error.raw_os_error().unwrap_or(nix::libc::EINVAL));
        let templates = Self { bare, with_libraries, with_proc };
        templates.enter(false, false).map_err(wall(Wall::Root, "entering the template root"))?;
        Ok(templates)
    }

    /// Moves the process into one, for the next clone to copy; what is mounted there.
    pub(super) fn enter(&self, libraries: bool, proc: bool) -> io::Result<&[MountEnforced]> {
        let root = match (libraries, &self.with_proc) {
            (false, _) if !proc => &self.bare,
            (true, _) if !proc => &self.with_libraries,
            (false, Ok([root, _])) | (true, Ok([_, root])) => root,
            (_, Err(errno)) => return Err(io::Error::from_raw_os_error(*errno)),
        };
        setns(&root.namespace, CloneFlags::CLONE_NEWNS)?;
        Ok(&root.mounts)
    }
}

fn build(host: &OwnedFd, proc: BorrowedFd<'_>, libraries: bool, with_proc: bool) -> io::Result<Root> {
    setns(host, CloneFlags::CLONE_NEWNS)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let copies: Vec<_> =
        COPIES.iter().filter_map(|name| Some((*name, fs::read(host_path(name)).ok()?))).collect();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), PLACE, Some("tmpfs"), flags, Some("mode=0755,size=8m,nr_inodes=256"))?;
    let mut mounts = vec![MountEnforced::new("/", "ro,nosuid,noexec")];
    let place = Path::new(PLACE);
    for folder in ["dev", "tmp", "app", "proc", "etc", "etc/ssl", "etc/ssl/certs", "usr"] {
        fs::create_dir(place.join(folder))?;
    }
    for (name, minor) in DEVICES {
        mounts.extend(device(&place.join("dev").join(name), name, minor)?);
    }
    for (name, text) in TEXTS {
        fs::write(place.join(name), text)?;
    }
    for (name, bytes) in copies {
        fs::write(place.join(name), bytes)?;
    }
    if libraries {
        for name in LIBRARIES {
            mounts.extend(library(place, name)?);
        }
    }
    if with_proc {
        empty_proc(&place.join("proc"))?;
        mounts.push(MountEnforced::new("/proc", "ro,nosuid,nodev,noexec"));
    }
    chdir(PLACE)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    mount(none, "/", none, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(proc.as_fd(), "self/ns/mnt", flags, rustix::fs::Mode::empty())?;
    Ok(Root { namespace, mounts })
}

/// A device node; the host's own, bound, where this process may make none.
fn device(path: &Path, name: &str, minor: u64) -> io::Result<Option<MountEnforced>> {
    match mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, minor)) {
        Err(nix::errno::Errno::EPERM) => {
            fs::write(path, "")?;
            let none: Option<&str> = None;
            let host = host_path("dev").join(name);
            mount(Some(host.as_path()), path, none, MsFlags::MS_BIND, none)?;
            // Above all noexec: a mapping of /dev/zero would be memory to write and to run.
            let flags = MsFlags::MS_BIND
                | MsFlags::MS_REMOUNT
                | MsFlags::MS_RDONLY
                | MsFlags::MS_NOSUID
                | MsFlags::MS_NOEXEC;
            mount(none, path, none, flags, none)?;
            Ok(Some(MountEnforced::new(format!("/dev/{name}"), "ro,nosuid,noexec")))
        }
        made => {
            made?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))?; // whatever the umask
            Ok(None)
        }
    }
}

fn host_path(name: &str) -> std::path::PathBuf {
    Path::new("/").join(name)
}

/// A library folder: a link stays a link, a folder is bound read-only, what is missing is missing.
fn library(place: &Path, name: &str) -> io::Result<Option<MountEnforced>> {
    let host = host_path(name);
    let Ok(about) = fs::symlink_metadata(&host) else { return Ok(None) };
    let here = place.join(name);
    if about.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(&host)?, &here)?;
        return Ok(None);
    }
    let none: Option<&str> = None;
    fs::create_dir(&here)?;
    mount(Some(host.as_path()), here.as_path(), none, MsFlags::MS_BIND, none)?;
    let flags =
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(none, here.as_path(), none, flags, none)?;
    Ok(Some(MountEnforced::new(format!("/{name}"), "ro,nosuid,nodev")))
}

/// Mounts the `/proc` of a pid namespace whose only process, the one that mounts it, then ends.
fn empty_proc(path: &Path) -> io::Result<()> {
    match cloister_sys::clone(Namespaces::Pid, None)? {
        Cloned::Child(_) => {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
            let none: Option<&str> = None;
            let mounted = mount(Some("proc"), path, Some("proc"), flags, none);
            cloister_sys::exit(mounted.err().map_or(0, |error| error as i32))
        }
        Cloned::Parent(pid) => match cloister_sys::wait_for(pid)?.map(|reaped| reaped.status) {
            Some(Ok(0)) => Ok(()),
            Some(Ok(errno)) => Err(io::Error::from_raw_os_error(errno)),
            other => Err(io::Error::other(format!("the helper that mounts /proc ended with {other:?}"))),
        },
    }
}
