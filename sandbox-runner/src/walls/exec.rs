//! The end of the chain.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;

use cloister_ipc::launch::{BINARY_FD, Failure, FromBlank, Stage, Start};
use nix::fcntl::AtFlags;
use nix::unistd::execveat;

use super::seccomp::counted;
use super::{Raising, stage};
use crate::failure::at;

/// Argument lists in the form exec takes, made before the last filter.
#[derive(Debug)]
pub struct Arguments {
    argv: Vec<CString>,
    env: Vec<CString>,
}

impl Arguments {
    /// Takes them from the start message.
    ///
    /// # Errors
    /// One has a NUL byte.
    pub fn new(start: &Start) -> Result<Self, Failure> {
        let strings = |texts: &[String]| {
            texts.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()
        };
        let nul = |_| io::Error::from_raw_os_error(nix::libc::EINVAL);
        let failed = || at::<io::Error>(Stage::Exec, "an argument or variable has a NUL byte");
        Ok(Self {
            argv: strings(&start.argv).map_err(nul).map_err(failed())?,
            env: strings(&start.env).map_err(nul).map_err(failed())?,
        })
    }
}

impl Raising<stage::Closed> {
    /// The report: what is enforced, and the filters. The last one is counted in, since nothing can be
    /// told after exec (if it can't be installed, [`Raising::exec`] fails).
    #[must_use]
    pub fn report(&self, last: &[u8]) -> FromBlank {
        let mut enforced = self.enforced.clone();
        enforced.seccomp.push(counted(last));
        let filters = self.filters.iter().map(Vec::as_slice).chain([last]);
        let filters = filters.map(|program| program.to_vec().into()).collect();
        FromBlank::Raised { enforced: Box::new(enforced), filters }
    }

    /// Installs the second filter and executes the binary.
    ///
    /// # Errors
    /// The kernel's: it is no filter, or no program.
    pub fn exec(mut self, last: &[u8], arguments: &Arguments) -> Result<Infallible, Failure> {
        let binary = self.child.borrowed(BINARY_FD).map_err(at(Stage::Exec, "the binary"))?;
        self.install(last)?;
        execveat(binary, c"", &arguments.argv, &arguments.env, AtFlags::AT_EMPTY_PATH)
            .map_err(at(Stage::Exec, "execveat"))
    }
}
