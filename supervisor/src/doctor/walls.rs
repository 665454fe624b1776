//! The walls, really raised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cloister_ipc::launch::{MitigationState, Stage};

use super::trial::Trial;
use super::{Check, State};
use crate::config::Config;
use crate::launch::{CgroupMode, Configure, Failure, Launcher, Options, Runner, StartError, Wall, Walls};
use crate::serve::runner_path;

const GROUP: &str = "walls";
/// Longest time for the start of the program.
const TIME: Duration = Duration::from_secs(20);

/// Raises all walls around a program of ours, waiving for the time being what is missing, so that
/// all that is missing is found.
fn raise(config: &Config) -> (BTreeMap<Wall, Failure>, Result<Walls, StartError>) {
    let mut missing: BTreeMap<Wall, Failure> = BTreeMap::new();
    loop {
        let waived: BTreeSet<Wall> = config.sandbox.waive.iter().chain(missing.keys()).copied().collect();
        match try_once(config, &waived) {
            Err(StartError::Failed(failure)) => match failure.stage {
                Stage::Wall(wall) if wall.waivable() && !waived.contains(&wall) => {
                    missing.insert(wall, failure);
                }
                _ => return (missing, Err(StartError::Failed(failure))),
            },
            raised => return (missing, raised),
        }
    }
}

/// The walls that this process can't raise around a Worker and that are not waived.
///
/// # Errors
/// One that can't be waived is missing, or there is another reason why no program can be started.
pub(crate) fn missing(config: &Config) -> Result<BTreeMap<Wall, Failure>, StartError> {
    let (missing, raised) = raise(config);
    raised.map(|_| missing)
}

/// Tells of each wall.
pub(super) fn check(config: &Config, checks: &mut Vec<Check>) {
    let (missing, raised) = raise(config);
    let stopped = match &raised {
        Err(StartError::Failed(Failure { stage: Stage::Wall(wall), .. })) => Some(*wall),
        _ => None,
    };
    for wall in Wall::ALL {
        let check = if let Some(failure) = missing.get(&wall) {
            Check::new(GROUP, wall.name(), State::Missing, failure.to_string()).fix(failure.fix())
        } else if config.sandbox.waive.contains(&wall) {
            Check::new(GROUP, wall.name(), State::Waived, "waived by sandbox.waive")
        } else {
            match (&raised, stopped) {
                (Ok(walls), _) => told(wall, walls),
                (Err(StartError::Failed(failure)), Some(at)) if at == wall => {
                    Check::new(GROUP, wall.name(), State::Missing, failure.to_string()).fix(failure.fix())
                }
                _ => Check::new(GROUP, wall.name(), State::Unknown, "not tried: see what is missing"),
            }
        };
        checks.push(check);
    }
    if let (Err(error), None) = (&raised, stopped) {
        checks.push(Check::new(GROUP, "start of a program", State::Missing, error.to_string()));
    }
}

/// What the kernel said of one wall.
fn told(wall: Wall, walls: &Walls) -> Check {
    let enforced = &walls.enforced;
    let ok = |detail: String| Check::new(GROUP, wall.name(), State::Ok, detail);
    match wall {
        Wall::Namespaces => ok(format!(
            "{}; nested user namespaces: {}",
            enforced.namespaces.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            nested(walls),
        )),
        Wall::OwnUid if walls.machine.own_uid => ok(format!("uid {} of the host", walls.uid)),
        Wall::OwnUid => Check::new(GROUP, wall.name(), State::Missing, "Workers share a uid")
            .fix("start cloister as root"),
        Wall::Root => {
            let mounts: Vec<_> =
                enforced.mounts.iter().map(|mount| format!("{} {}", mount.point, mount.options)).collect();
            ok(format!("{} mounts: {}", mounts.len(), mounts.join("; ")))
        }
        Wall::Network => ok("loopback only".to_owned()),
        Wall::Landlock => match &enforced.landlock {
            Some(landlock) => ok(format!(
                "ABI {}, file rights {:#x}; not known to it: {}",
                landlock.abi,
                landlock.fs,
                if landlock.lacks.is_empty() { "nothing".into() } else { landlock.lacks.join(", ") },
            )),
            None => not_enforced(wall),
        },
        Wall::LandlockTcp => match &enforced.landlock {
            Some(landlock) if landlock.net != 0 => ok(format!("network rights {:#x}", landlock.net)),
            _ => not_enforced(wall),
        },
        Wall::LandlockScopes => match &enforced.landlock {
            Some(landlock) if landlock.scopes != 0 => ok(format!("scopes {:#x}", landlock.scopes)),
            _ => not_enforced(wall),
        },
        Wall::Seccomp => {
            let programs: Vec<_> = enforced
                .seccomp
                .iter()
                .map(|program| {
                    format!("{} ({})", program.instructions, program.sha256.get(..16).unwrap_or_default())
                })
                .collect();
            ok(format!("programs of {} instructions (SHA-256)", programs.join(", ")))
        }
        Wall::Privilege => ok(format!(
            "capabilities {:#x}, no_new_privs {}, securebits {:#x}",
            enforced.capabilities, enforced.no_new_privs, enforced.securebits
        )),
        Wall::MemoryDenyWriteExecute | Wall::Speculation | Wall::CoreScheduling => mitigation(wall, walls),
        Wall::Descriptors => ok("nothing open but what is given".to_owned()),
        Wall::Cgroup => match walls.machine.cgroup {
            CgroupMode::V2 => ok("v2: cpu, memory, pids".to_owned()),
            CgroupMode::V1 => ok("v1, a hierarchy per controller: cpu, memory, pids".to_owned()),
            CgroupMode::None => not_enforced(wall),
        },
        Wall::Rlimits => ok(enforced
            .rlimits
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")),
    }
}

fn not_enforced(wall: Wall) -> Check {
    Check::new(GROUP, wall.name(), State::Waived, "not enforced")
}

/// Whether further user namespaces can be made in a Worker's by whoever gets past everything else.
fn nested(walls: &Walls) -> String {
    let nested = walls.enforced.mitigations.iter().find(|one| one.name == "no-nested-user-namespaces");
    match nested.map(|one| one.state) {
        Some(MitigationState::On) => "none".into(),
        Some(MitigationState::Unavailable(errno)) => {
            format!("as many as the host lets ({})", nix::errno::Errno::from_raw(errno))
        }
        Some(MitigationState::Waived) | None => "as many as the host lets".into(),
    }
}

/// Walls that are made of controls which a machine may lack.
fn mitigation(wall: Wall, walls: &Walls) -> Check {
    let others =
        ["memory-deny-write-execute", "core-scheduling", "unreadable-binary", "no-nested-user-namespaces"];
    let of_it = |name: &str| match wall {
        Wall::Speculation => !others.contains(&name),
        wall => name == wall.name(),
    };
    let mut worst = State::Ok;
    let mut words = Vec::new();
    for mitigation in walls.enforced.mitigations.iter().filter(|mitigation| of_it(&mitigation.name)) {
        let (state, word) = match mitigation.state {
            MitigationState::On => (State::Ok, "on".to_owned()),
            MitigationState::Unavailable(errno) => {
                (State::Unavailable, format!("not on this machine ({})", nix::errno::Errno::from_raw(errno)))
            }
            MitigationState::Waived => (State::Waived, "waived".to_owned()),
        };
        if worst == State::Ok {
            worst = state;
        }
        words.push(format!("{} {word}", mitigation.name));
    }
    if words.is_empty() {
        return Check::new(GROUP, wall.name(), State::Unknown, "nothing was told of it");
    }
    Check::new(GROUP, wall.name(), worst, words.join(", "))
}

/// Starts a launcher, and a program behind every wall but the waived.
fn try_once(config: &Config, waived: &BTreeSet<Wall>) -> Result<Walls, StartError> {
    let io =
        |what: &'static str| move |error: std::io::Error| StartError::Io { what, error: error.to_string() };
    let path = runner_path(config).map_err(|error| StartError::LauncherGone(error.to_string()))?;
    let Runner { mut child, socket } = Runner::spawn(&path).map_err(io("starting the launcher"))?;
    let options = Options {
        configure: Configure {
            // The last of the range: a running platform hands them out from the first.
            uid_base: config.sandbox.uids.end - 1,
            uid_count: 1,
            waived: waived.iter().copied().collect(),
        },
        blanks: 0,
        specs: 1,
        start_timeout: TIME,
    };
    let result = Launcher::connect(socket, options).and_then(|launcher| {
        // Where Workers' binaries lie programs can be executed; /tmp is often mounted noexec.
        // What a kill leaves in `staging` goes at the next start.
        let places = [config.state.join("staging"), config.state.clone()];
        let folder = places.into_iter().find(|place| place.is_dir()).unwrap_or_else(std::env::temp_dir);
        let walls = Trial::prepare(&path, &folder).and_then(|trial| trial.run(&launcher));
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(io("a runtime"))?;
        runtime.block_on(launcher.shutdown());
        walls
    });
    child.wait().map_err(io("waiting for the launcher"))?;
    result
}
