//! Wall: seccomp, the first filter. (The second is installed by the exec step.)

use cloister_ipc::launch::{Failure, Wall};

use super::{Raising, stage};
use crate::failure::wall;

impl Raising<stage::Powerless> {
    /// Installs the first filter. What the blank still calls afterwards must be allowed by it.
    pub(crate) fn filter(mut self, program: &[u8]) -> Result<Raising<stage::Filtered>, Failure> {
        self.install(program)?;
        Ok(self.advance())
    }
}

impl<Stage> Raising<Stage> {
    pub(super) fn install(&mut self, program: &[u8]) -> Result<(), Failure> {
        let instructions = u32::try_from(program.len() / 8).unwrap_or(u32::MAX);
        cloister_sys::install_filter(program)
            .map_err(wall(Wall::Seccomp, format!("installing a filter of {instructions} instructions")))?;
        self.enforced.seccomp.push(instructions);
        Ok(())
    }
}
