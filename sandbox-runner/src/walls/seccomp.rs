//! Wall: seccomp, the first filter. (The second is installed by the exec step.)

use std::io;

use cloister_ipc::launch::{Failure, SeccompEnforced, Stage, Wall};
use nix::libc;

use super::{Raising, stage};
use crate::failure::{failure, wall};

impl Raising<stage::Powerless> {
    /// Installs the first filter. What the blank still calls afterwards must be allowed by it.
    ///
    /// # Errors
    /// It could say of a call that it happened; or the kernel's, when it is no program.
    pub fn filter(mut self, program: &[u8]) -> Result<Raising<stage::Filtered>, Failure> {
        if !is_honest(program) {
            let error = io::Error::from_raw_os_error(libc::EINVAL);
            let what = "the first filter may only allow, refuse with an error, or kill";
            return Err(failure(Stage::Wall(Wall::Seccomp), what, &error));
        }
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

/// Whether each answer of a program is to let the call happen, an error that its caller sees, or death. It comes from
/// the supervisor, and the walls behind it are raised by calls that it judges: an answer of "no error" without the call
/// (or one that somebody else makes up) would be a wall that only seems to stand.
fn is_honest(program: &[u8]) -> bool {
    const RETURNS: u16 = 0x06; // BPF_RET, a class: the low three bits (linux/bpf_common.h)
    const CONSTANT: u16 = 0x06; // BPF_RET | BPF_K
    let (instructions, rest) = program.as_chunks::<8>();
    let honest = |[low, high, _, _, k @ ..]: &[u8; 8]| {
        let code = u16::from_ne_bytes([*low, *high]);
        let answer = u32::from_ne_bytes(*k);
        let error = answer & libc::SECCOMP_RET_DATA;
        code & 7 != RETURNS
            || code == CONSTANT
                && match answer & libc::SECCOMP_RET_ACTION_FULL {
                    libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_KILL_PROCESS => true,
                    libc::SECCOMP_RET_ERRNO => error != 0,
                    _ => false,
                }
    };
    rest.is_empty() && instructions.iter().all(honest)
}

/// A program in the report; its hash is made by the supervisor, which has the means.
pub(super) fn counted(program: &[u8]) -> SeccompEnforced {
    let instructions = u32::try_from(program.len() / 8).unwrap_or(u32::MAX);
    SeccompEnforced { instructions, sha256: String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(instructions: &[(u16, u32)]) -> Vec<u8> {
        let bytes = |(code, k): &(u16, u32)| {
            let [low, high] = code.to_ne_bytes();
            let [a, b, c, d] = k.to_ne_bytes();
            [low, high, 0, 0, a, b, c, d]
        };
        instructions.iter().flat_map(bytes).collect()
    }

    #[test]
    fn a_filter_that_could_lie_is_none() {
        let load = (0x20, 0);
        for answer in [0x7fff_0000, 0x8000_0000, 0x0005_0001, 0x0005_0026] {
            assert!(is_honest(&program(&[load, (0x06, answer)])), "{answer:#x}");
        }
        for (what, instruction) in [
            ("no error", (0x06, 0x0005_0000)),
            ("what the accumulator holds", (0x16, 0)),
            ("an error of it", (0x16, 0x0005_0001)),
            ("another process's answer", (0x06, 0x7fc0_0000)),
            ("a tracer's answer", (0x06, 0x7ff0_0000)),
            ("a signal", (0x06, 0x0003_0001)),
            ("the end of one thread", (0x06, 0)),
        ] {
            assert!(!is_honest(&program(&[load, (0x06, 0x7fff_0000), instruction])), "{what}");
        }
        assert!(!is_honest(&program(&[load])[..7]), "a part of an instruction");
    }
}
