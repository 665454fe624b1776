//! Kernel doors: everything a server never uses is shut.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use cloister_ipc::launch::{FromBlank, Spec};
use cloister_policies::seccomp::{self, Profile};
use cloister_supervisor::registry::{Allow, Contract};
use nix::fcntl::{OFlag, open};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use crate::cell::{Cell, all_refused, all_worked, stored};
use crate::takeover::{binary, no_filter, start, tell_start};
use crate::target::{Target, hear, spec};

#[tokio::test]
async fn no_door_opens() {
    all_refused(&Cell::new("doors").probes().await);
}

#[tokio::test]
async fn no_door_opens_for_ipc() {
    all_refused(&Cell::new("doors").contract(Contract::Ipc).probes().await);
}

#[tokio::test]
async fn no_door_opens_with_waivers() {
    let cell = Cell::new("doors").allow(Allow::Processes).allow(Allow::Jit).allow(Allow::Proc);
    all_refused(&cell.probes().await);
}

#[tokio::test]
async fn harmless_calls_work() {
    all_worked(&Cell::new("doors_twin").probes().await);
    all_worked(&Cell::new("doors_twin").contract(Contract::Ipc).probes().await);
}

/// What a Worker can do to a terminal that is its output, behind these two filters. (The platform gives
/// it pipes; only the launcher's orders can give it one.)
fn on_a_terminal(base: Vec<u8>, last: Vec<u8>) -> BTreeMap<String, String> {
    // Closed in what other tests start, so that its end is seen.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = open(ptsname_r(&master).unwrap().as_str(), flags, Mode::empty()).unwrap();
    // Neither echo nor other line ends.
    let mut raw = tcgetattr(&slave).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&slave, SetArg::TCSANOW, &raw).unwrap();
    let target = Target::configured();
    let socket = target.blank(1, Spec { base, ..spec() }).unwrap();
    let mut message = start(&["0".into()]);
    message.last = last;
    let program = binary(&stored("terminal", false));
    tell_start(&socket, message, &[program.as_fd(), slave.as_fd(), slave.as_fd()]);
    drop(slave);
    let told = hear::<FromBlank>(&socket);
    assert!(matches!(told, Some((FromBlank::Raised { .. }, _))), "{told:?}");
    let text = said_on(&master);
    assert!(target.end().success());
    let results = text.lines().filter_map(|line| line.split_once(' ')?.1.split_once(" = "));
    results.map(|(name, result)| (name.to_owned(), result.to_owned())).collect()
}

/// All that is written to a terminal until nobody has it open any more.
fn said_on(master: &PtyMaster) -> String {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = nix::unistd::read(master, &mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8(all).unwrap()
}

/// A terminal is no door either; and it is the filter that says so, as what is tried here succeeds
/// without one.
#[test]
fn a_terminal_takes_nothing_from_a_worker() {
    let profile = Profile { contract: seccomp::Contract::Http, processes: false, jit: false };
    let filters = seccomp::compile(&profile).unwrap();
    let filtered = on_a_terminal(filters.base, filters.last);
    let free = on_a_terminal(no_filter(), no_filter());
    println!("{filtered:#?}, without a filter {free:#?}");
    assert_eq!(filtered.len(), 9);
    // The filter's own word for it: a terminal has others.
    let refused = filtered.values().all(|result| result == "ENOTTY");
    assert!(refused, "{filtered:#?}");
    assert_eq!(free["TIOCSCTTY"], "ok 0");
    // Since Linux 6.2 it may be switched off.
    let typing = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    let typing = typing.map_or("ok 0", |set| if set.trim() == "0" { "EIO" } else { "ok 0" });
    for name in ["TIOCSTI", "TIOCSTI with high bits", "TIOCSTI with the top bit"] {
        assert_eq!(free[name], typing, "{name}");
    }
    assert_eq!(free["TIOCSETD"], "ok 0");
    assert_eq!(free["TIOCEXCL"], "ok 0");
}
