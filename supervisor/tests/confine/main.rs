//! The supervisor's own walls, tried from behind them: this program runs itself once for each
//! attempt, confines itself as `cloister serve` does, and tries. Each attempt has a harmless twin that
//! must still work. (No test harness: its threads would not be behind the walls.)
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail loudly")]

mod attempts;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use attempts::{ATTEMPTS, Attempt, Place, Wanted, take_away};
use cloister_supervisor::config::{Config, SupervisorWall};
use cloister_supervisor::serve::confine::{Paths, confine};

/// Exit status of a child whose attempt worked; 100 + errno when it was refused.
const WORKED: u8 = 42;
/// Exit status of a child that could not be confined.
const NOT_CONFINED: u8 = 43;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name, folder, waived] = arguments.as_slice()
        && word == "attempt"
    {
        return child(name, Path::new(folder), waived);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed) = (0, 0);
    let mut count = |name: &str, result: Result<(), String>| match result {
        Ok(()) => {
            passed += 1;
            println!("test {name} ... ok");
        }
        Err(why) => {
            failed += 1;
            println!("test {name} ... FAILED: {why}");
        }
    };
    let abi = cloister_sys::landlock_abi();
    for attempt in ATTEMPTS.iter().filter(|attempt| filter.is_none_or(|text| attempt.name.contains(text))) {
        if abi >= attempt.abi {
            count(attempt.name, judge(attempt));
        }
    }
    count("other_threads_are_refused", threads());
    for wall in SupervisorWall::ALL {
        count(&format!("refused_on_a_kernel_without_{wall}"), missing(wall));
    }
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed",
        if failed == 0 { "ok" } else { "FAILED" }
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Behind the walls it must come out as wanted, and without them it must work: else it shows nothing.
fn judge(attempt: &Attempt) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let place = Place::make(folder.path());
    let bare = run(attempt, &place, "supervisor-landlock,supervisor-seccomp");
    if bare != "worked" {
        return Err(format!("{bare} without any wall"));
    }
    let place = Place::make_again(folder.path());
    let got = run(attempt, &place, attempt.waived);
    let wanted = match attempt.wanted {
        Wanted::Works => "worked".to_owned(),
        Wanted::Refused(errno) => format!("errno {errno}"),
        Wanted::Killed => "signal 31".to_owned(),
    };
    if got == wanted { Ok(()) } else { Err(format!("{got}, wanted: {wanted}")) }
}

fn run(attempt: &Attempt, place: &Place, waived: &str) -> String {
    let own = std::env::current_exe().expect("its own path");
    let mut command = Command::new(own);
    command.arg("attempt").arg(attempt.name).arg(&place.folder).arg(waived);
    let status = command.status().expect("running itself");
    match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(WORKED) => "worked".into(),
        (Some(code), _) if code == i32::from(NOT_CONFINED) => "not confined".into(),
        (Some(code), _) if code > 100 => format!("errno {}", code - 100),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => format!("{status}"),
    }
}

fn child(name: &str, folder: &Path, waived: &str) -> ExitCode {
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.name == name).expect("an attempt");
    let place = Place::at(folder);
    let config = Config::load(&place.config).expect("the configuration");
    let names: Vec<&str> = waived.split(',').collect();
    let waived: BTreeSet<_> =
        SupervisorWall::ALL.into_iter().filter(|wall| names.contains(&wall.name())).collect();
    let prepared = (attempt.prepare)(&place);
    for wall in SupervisorWall::ALL {
        if std::env::var("LACKS").is_ok_and(|lacks| lacks == wall.name()) {
            take_away(match wall {
                SupervisorWall::Landlock => nix::libc::SYS_landlock_create_ruleset,
                SupervisorWall::Seccomp => nix::libc::SYS_seccomp,
            });
        }
    }
    match confine(&Paths::of(&config), &waived) {
        Ok(_) => {}
        Err(error) => {
            eprintln!("{error}; {}", error.fix());
            return ExitCode::from(NOT_CONFINED);
        }
    }
    match (attempt.act)(&place, prepared) {
        Ok(()) => ExitCode::from(WORKED),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or_else(|| panic!("{name}: {error}"));
            ExitCode::from(u8::try_from(100 + errno).expect("a small error number"))
        }
    }
}

/// On a kernel that lacks one, the start is refused and the wall named, unless it is waived.
fn missing(wall: SupervisorWall) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::make(folder.path());
    for (waived, wanted) in [("", NOT_CONFINED), (wall.name(), WORKED)] {
        let own = std::env::current_exe().expect("its own path");
        let mut command = Command::new(own);
        command.args(["attempt", "makes_a_pair"]).arg(&place.folder).arg(waived).env("LACKS", wall.name());
        let output = command.output().expect("running itself");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(i32::from(wanted)) {
            return Err(format!("waived {waived:?}: {} {said}", output.status));
        }
        if waived.is_empty() && !said.contains(&format!("waive `{wall}`")) {
            return Err(format!("it does not say what to do: {said}"));
        }
    }
    Ok(())
}

/// With a second thread the walls would be around one of two.
fn threads() -> Result<(), String> {
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || ended.recv());
    let result = confine(&Paths::default(), &BTreeSet::new());
    drop(end);
    let _disconnected = other.join().expect("the other thread");
    match result {
        Err(error) if error.to_string().contains("2 threads") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
