//! Wall: descriptors. Every number is decided; whatever else is open is closed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use cloister_ipc::control::CONTROL_FD;
use cloister_ipc::launch::{BINARY_FD, Failure, Stage, Start, Wall};
use nix::sys::resource::Resource;
use nix::unistd::{chdir, getcwd};
use rustix::fs::{FileType, fstat};
use rustix::io::fcntl_dupfd_cloexec;

use super::{Raising, stage};
use crate::failure::{at, failure, wall};

/// Number of the start socket until exec closes it.
pub const START_FD: RawFd = BINARY_FD - 1;

/// Numbers from here up to the start socket's hold what is on its way to its place.
const PARKED: RawFd = 64;

/// What a Worker is given.
#[derive(Debug)]
pub struct Given {
    /// Its binary (`O_PATH`).
    pub binary: OwnedFd,
    /// Descriptor 1.
    pub stdout: OwnedFd,
    /// Descriptor 2.
    pub stderr: OwnedFd,
    /// Descriptor 3: the control socket or the listening one.
    pub third: Option<OwnedFd>,
    /// The archive for `/app`.
    pub files: Option<OwnedFd>,
}

impl Given {
    /// Takes what came with the start message, in the order that [`ToBlank::Start`] tells.
    ///
    /// # Errors
    /// Another number of descriptors came than the message tells.
    ///
    /// [`ToBlank::Start`]: cloister_ipc::launch::ToBlank::Start
    pub fn take(start: &Start, descriptors: Vec<OwnedFd>) -> Result<Self, Failure> {
        let wanted = 3 + usize::from(start.control) + usize::from(start.files);
        if descriptors.len() != wanted || (start.control && start.listen.is_some()) {
            let what = format!("{} descriptors came with the start, not {wanted}", descriptors.len());
            return Err(Failure { stage: Stage::Protocol, errno: 0, what });
        }
        // A folder among them would be a way to the host, past the root and past landlock (fchdir, connect).
        let output = [FileType::Fifo, FileType::CharacterDevice];
        let kinds = [&[FileType::RegularFile][..], &output, &output]
            .into_iter()
            .chain(start.control.then_some(&[FileType::Socket][..]))
            .chain(start.files.then_some(&[FileType::RegularFile][..]));
        for (number, (descriptor, wanted)) in descriptors.iter().zip(kinds).enumerate() {
            let status = fstat(descriptor).map_err(|error| Failure {
                stage: Stage::Protocol,
                errno: error.raw_os_error(),
                what: "looking at descriptors".into(),
            })?;
            let found = FileType::from_raw_mode(status.st_mode);
            if !wanted.contains(&found) {
                let what = format!("descriptor {number} of the start is {found:?}, not {wanted:?}");
                return Err(Failure { stage: Stage::Protocol, errno: 0, what });
            }
        }
        let mut parked = descriptors
            .into_iter()
            .map(|descriptor| fcntl_dupfd_cloexec(descriptor, PARKED))
            .collect::<Result<Vec<_>, _>>()
            .map_err(at(Stage::Wall(Wall::Descriptors), "parking descriptors"))?
            .into_iter();
        let missing = || Failure { stage: Stage::Protocol, errno: 0, what: "descriptors".into() };
        Ok(Self {
            binary: parked.next().ok_or_else(missing)?,
            stdout: parked.next().ok_or_else(missing)?,
            stderr: parked.next().ok_or_else(missing)?,
            third: if start.control { parked.next() } else { None },
            files: if start.files { parked.next() } else { None },
        })
    }
}

/// The writable side of `/app`, gone before the binary runs.
#[derive(Debug)]
pub struct Writable(pub Option<OwnedFd>);

impl Raising<stage::Landlocked> {
    /// Puts each descriptor to its number (the binary's is the only one execveat may name), closes
    /// everything else, then takes the numbers from the binary's on away, and checks the working
    /// directory. Returns the start socket.
    ///
    /// # Errors
    /// The step that failed.
    pub fn close_descriptors(
        mut self,
        given: Given,
        files: bool,
    ) -> Result<(Raising<stage::Closed>, BorrowedFd<'static>), Failure> {
        let failed = |what: &str| wall(Wall::Descriptors, what.to_owned());
        self.check_unreadable(given.binary.as_fd())?;
        let place = |descriptor: &OwnedFd, number, cloexec| {
            cloister_sys::place(&self.child, descriptor.as_fd(), number, cloexec)
        };
        place(&given.stdout, 1, false).map_err(failed("placing stdout"))?;
        place(&given.stderr, 2, false).map_err(failed("placing stderr"))?;
        if let Some(third) = &given.third {
            place(third, CONTROL_FD, false).map_err(failed("placing descriptor 3"))?;
        }
        place(&given.binary, BINARY_FD, true).map_err(failed("placing the binary"))?;
        let first = if given.third.is_some() { CONTROL_FD + 1 } else { CONTROL_FD };
        drop(given);
        let last = (START_FD - 1).cast_unsigned();
        self.child.close_between(first.cast_unsigned(), last).map_err(failed("close_range"))?;
        self.child.close_between(BINARY_FD.cast_unsigned() + 1, u32::MAX).map_err(failed("close_range"))?;
        self.limit("nofile", Resource::RLIMIT_NOFILE, u64::from(BINARY_FD.cast_unsigned()))?;

        let wanted = if files { "/app" } else { "/" };
        chdir(wanted).map_err(wall(Wall::Descriptors, "changing the working directory"))?;
        let cwd = getcwd().map_err(wall(Wall::Descriptors, "getcwd"))?;
        if cwd.as_os_str() != wanted {
            let error = io::Error::other(format!("{} instead of {wanted}", cwd.display()));
            return Err(failure(Stage::Wall(Wall::Descriptors), "working directory", &error));
        }
        let start = self.child.borrowed(START_FD).map_err(failed("the start socket"))?;
        Ok((self.advance(), start))
    }
}
