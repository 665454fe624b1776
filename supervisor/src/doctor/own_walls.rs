//! The supervisor's own walls, really raised: around a thread that then ends.

use super::{Check, State};
use crate::config::{Config, SupervisorWall};
use crate::serve::confine::{self, ConfineError, Confined, Paths};

const GROUP: &str = "supervisor";

/// Raises each wall that is not waived.
pub(super) fn check(config: &Config, checks: &mut Vec<Check>) {
    let paths = Paths::of(config);
    for wall in SupervisorWall::ALL {
        if config.sandbox.waive_own.contains(&wall) {
            checks.push(Check::new(GROUP, wall.name(), State::Waived, "waived by sandbox.waive"));
            continue;
        }
        let others = SupervisorWall::ALL.into_iter().filter(|other| *other != wall).collect();
        let raised = std::thread::scope(|scope| scope.spawn(|| confine::raise(&paths, &others)).join());
        checks.push(match raised {
            Ok(raised) => told(wall, raised),
            Err(_) => Check::new(GROUP, wall.name(), State::Unknown, "raising it panicked"),
        });
    }
}

fn told(wall: SupervisorWall, raised: Result<Confined, ConfineError>) -> Check {
    let missing = |why: String| Check::new(GROUP, wall.name(), State::Missing, why);
    match raised {
        Ok(Confined { landlock: Some(landlock), .. }) => {
            let detail = format!(
                "ABI {}, file rights {:#x}, network rights {:#x}, scopes {:#x}",
                landlock.abi, landlock.fs, landlock.net, landlock.scopes
            );
            match landlock.lacks().as_slice() {
                [] => Check::new(GROUP, wall.name(), State::Ok, detail),
                lacks => {
                    let detail = format!("{detail}; this kernel leaves out {}", lacks.join(", "));
                    Check::new(GROUP, wall.name(), State::Unavailable, detail).fix("boot Linux 6.12 or newer")
                }
            }
        }
        Ok(Confined { seccomp: Some(instructions), .. }) => {
            Check::new(GROUP, wall.name(), State::Ok, format!("a program of {instructions} instructions"))
        }
        Ok(_) => missing("not raised".to_owned()),
        Err(error) => missing(error.why.clone()).fix(error.fix()),
    }
}
