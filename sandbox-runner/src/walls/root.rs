//! Wall: the empty root. The launcher pivoted into the template; the child adds what is its own.

use std::os::fd::OwnedFd;

use cloister_ipc::launch::{Failure, MountEnforced, Spec, Wall};
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, getcwd};
use rustix::fs::{Mode, OFlags};

use super::{Raising, Writable, stage};
use crate::failure::{failure, wall};

/// No new file may be a program, a device or give an id.
const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

impl Raising<stage::Named> {
    /// `/tmp`, `/app` and `/proc` as the spec says, over what the `template` has mounted. `/app` is
    /// mounted read-only over a writable mount of the same files, which only the returned descriptor
    /// reaches.
    ///
    /// # Errors
    /// The step that failed, or that the host's files can be seen.
    pub fn enter_root(
        mut self,
        spec: &Spec,
        template: &[MountEnforced],
    ) -> Result<(Raising<stage::Rooted>, Writable), Failure> {
        self.enforced.mounts = template.to_vec();
        self.tmpfs("/tmp", spec.tmp_bytes, "1777")?;
        let mut app = None;
        if spec.app_bytes > 0 {
            self.tmpfs("/app", spec.app_bytes, "0755")?;
            app = Some(folder("/app")?);
            let none: Option<&str> = None;
            mount(Some("/app"), "/app", none, MsFlags::MS_BIND, none)
                .map_err(wall(Wall::Root, "binding /app"))?;
            let flags = HARMLESS | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, "/app", none, flags, none).map_err(wall(Wall::Root, "making /app read-only"))?;
            self.mounted("/app", "ro,nosuid,nodev,noexec");
        }
        if spec.proc {
            let flags = HARMLESS | MsFlags::MS_RDONLY;
            mount(Some("proc"), "/proc", Some("proc"), flags, Some("subset=pid,hidepid=invisible"))
                .map_err(wall(Wall::Root, "mounting /proc"))?;
            self.mounted("/proc", "ro,nosuid,nodev,noexec,hidepid=invisible,subset=pid");
        }
        chdir("/").map_err(wall(Wall::Root, "chdir(/)"))?;
        self.verify_root()?;
        Ok((self.advance(), Writable(app)))
    }

    fn mounted(&mut self, point: &str, options: &str) {
        self.enforced.mounts.push(MountEnforced::new(point, options));
    }

    fn tmpfs(&mut self, path: &str, bytes: u64, mode: &str) -> Result<(), Failure> {
        // Every inode costs the Worker's memory too, so this bounds only the kernel's work.
        let inodes = (bytes / 1024).clamp(256, 65_536);
        let options = format!("size={bytes},nr_inodes={inodes},mode={mode}");
        mount(Some("tmpfs"), path, Some("tmpfs"), HARMLESS, Some(options.as_str()))
            .map_err(wall(Wall::Root, format!("mounting a tmpfs of {bytes} bytes at {path}")))?;
        let page = rustix::param::page_size() as u64;
        let size = bytes.div_ceil(page).saturating_mul(page) / 1024;
        self.mounted(path, &format!("rw,nosuid,nodev,noexec,size={size}k"));
        Ok(())
    }

    /// The working directory is reachable and is the root of the template, not of the host.
    fn verify_root(&self) -> Result<(), Failure> {
        let cwd = getcwd().map_err(wall(Wall::Root, "getcwd"))?;
        let host = rustix::fs::statat(rustix::fs::CWD, "/etc/shadow", rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        if cwd.as_os_str() != "/" || host.is_ok() {
            let error = std::io::Error::other("the host's files can be seen");
            return Err(failure(cloister_ipc::launch::Stage::Wall(Wall::Root), "checking the root", &error));
        }
        Ok(())
    }
}

fn folder(path: &str) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(wall(Wall::Root, format!("opening {path}")))
}
