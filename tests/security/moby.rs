//! Docker's default profile as a measure: what it gives no container, no Worker has.

use std::collections::BTreeMap;

use cloister_policies::seccomp::{self, Action, Decision, Profile, syscall_name};

/// Names, one a line.
const DENIED: &str = include_str!("lists/moby-denied.txt");

fn denied() -> impl Iterator<Item = &'static str> {
    DENIED.lines().filter(|line| !line.starts_with('#'))
}

fn profiles() -> impl Iterator<Item = Profile> {
    let contracts = [seccomp::Contract::Http, seccomp::Contract::Ipc];
    let waivers = [(false, false), (true, false), (false, true), (true, true)];
    contracts
        .into_iter()
        .flat_map(move |contract| waivers.map(|(processes, jit)| Profile { contract, processes, jit }))
}

#[test]
fn no_policy_allows_what_it_denies() {
    assert!(denied().count() > 70);
    for profile in profiles() {
        let decisions = seccomp::decisions(&profile).unwrap();
        let decisions: BTreeMap<_, _> = decisions
            .into_iter()
            .filter_map(|(number, decision)| Some((syscall_name(number)?, decision)))
            .collect();
        for name in denied() {
            match decisions.get(name) {
                // Refused, whatever the arguments; what nothing names fails with ENOSYS.
                None | Some(Decision::Always(Action::Errno(_) | Action::Kill)) => {}
                Some(other) => panic!("{name} for {profile:?}: {other:?}"),
            }
        }
    }
}

/// What it allows only with some arguments.
#[test]
fn no_policy_allows_arguments_that_it_denies() {
    // Families of sockets that it leaves out, personalities, and namespaces of clone.
    let refused: [(&str, &[u64]); 4] = [
        ("socket", &[38, 40]),
        ("personality", &[1, 4, 0x40_0000]),
        ("clone", &[0x7e02_0000]),
        ("clone3", &[0]),
    ];
    for profile in profiles() {
        for (number, decision) in seccomp::decisions(&profile).unwrap() {
            let called = syscall_name(number).unwrap();
            for (name, values) in refused.iter().filter(|(name, _)| *name == called) {
                for value in *values {
                    assert_ne!(decision.of(&[*value, 1, 0, 0, 0, 0]), Action::Allow, "{name} {value:#x}");
                }
            }
        }
    }
}

/// And not only on paper: in the tables of what the kernel really answered.
#[test]
fn no_worker_was_given_what_it_denies() {
    for (name, table) in [
        ("http", include_str!("snapshots/http.txt")),
        ("ipc", include_str!("snapshots/ipc.txt")),
        ("http with waivers", include_str!("snapshots/http-processes-jit.txt")),
    ] {
        let results: BTreeMap<_, _> =
            table.lines().filter_map(|line| line.split_once(' ')?.1.split_once(" = ")).collect();
        for call in denied() {
            let result = results.get(call).unwrap_or_else(|| panic!("{call} is not in the table"));
            assert!(["killed", "ENOSYS", "EPERM"].contains(result), "{name}: {call} = {result}");
        }
    }
}
