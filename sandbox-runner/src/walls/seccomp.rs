//! Wall: seccomp, the first filter. (The second is installed by the exec step.)

use cloister_ipc::launch::{Failure, SeccompEnforced, Wall};

use super::{Raising, stage};
use crate::failure::wall;

impl Raising<stage::Powerless> {
    /// Installs the first filter. What the blank still calls afterwards must be allowed by it.
    ///
    /// # Errors
    /// The kernel's, when it is no program.
    pub fn filter(mut self, program: &[u8]) -> Result<Raising<stage::Filtered>, Failure> {
        self.install(program)?;
        Ok(self.advance())
    }
}

impl<Stage> Raising<Stage> {
    pub(super) fn install(&mut self, program: &[u8]) -> Result<(), Failure> {
        let counted = counted(program);
        cloister_sys::install_filter(program).map_err(wall(
            Wall::Seccomp,
            format!("installing a filter of {} instructions", counted.instructions),
        ))?;
        self.enforced.seccomp.push(counted);
        self.filters.push(program.to_vec());
        Ok(())
    }
}

/// A program in the report; its hash is made by the supervisor, which has the means.
pub(super) fn counted(program: &[u8]) -> SeccompEnforced {
    let instructions = u32::try_from(program.len() / 8).unwrap_or(u32::MAX);
    SeccompEnforced { instructions, sha256: String::new() }
}
