//! What a filter costs: the calls that a busy server makes all the time are counted, instruction by instruction.

use super::interpreter::{Call, Run, trace};
use super::tests::{ARCHES, Filters, profiles};
use super::*;

/// Without conditions. The kernel (since 5.11) finds out at installation that they are allowed whatever
/// their arguments, and runs no filter for them; an older one walks the tree.
const FREE: &str = "read write readv writev close epoll_wait epoll_pwait epoll_ctl futex recvfrom recvmsg \
    clock_gettime openat fstat munmap gettid sched_yield";

/// With a condition: both filters are run each time.
const PAID: &str = "sendto sendmsg mmap madvise fcntl";

/// Runs of both filters for a call of this name, where the machine has it.
fn runs(filters: &Filters, name: &str, args: [u64; 6]) -> Option<[Run; 2]> {
    let call = Call { arch: filters.arch.audit(), number: *filters.numbers.get(name)?, args };
    Some([trace(&filters.programs.base, call), trace(&filters.programs.last, call)])
}

#[test]
fn hot_calls_are_cheap() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            for name in FREE.split_whitespace() {
                let Some(runs) = runs(&filters, name, [u64::MAX; 6]) else {
                    assert!(name == "epoll_wait" && arch == Arch::Aarch64, "{name}");
                    continue;
                };
                let free = runs.iter().all(|run| run.action == Action::Allow && !run.looked);
                assert!(free, "{arch:?} {profile:?} {name} is refused or has a condition");
                let [base, last] = runs.map(|run| run.steps);
                assert!(base <= 14 && last <= 12, "{arch:?} {profile:?} {name}: {base} + {last} steps");
            }
            for name in PAID.split_whitespace() {
                let [base, last] = runs(&filters, name, [0; 6]).unwrap().map(|run| run.steps);
                assert!(base <= 18 && last <= 16, "{arch:?} {profile:?} {name}: {base} + {last} steps");
            }
        }
    }
}

/// What the policy allows whatever the arguments, the programs allow without a look at them. Else the kernel
/// could not remember it.
#[test]
fn what_has_no_condition_in_the_policy_has_none_in_the_programs() {
    for arch in ARCHES {
        for profile in profiles() {
            let filters = Filters::new(arch, profile);
            let mut free = 0;
            for (number, decision) in decisions_for(arch, &profile).unwrap() {
                if decision == Decision::Always(Action::Allow) {
                    let call = Call { arch: arch.audit(), number, args: [u64::MAX; 6] };
                    for program in [&filters.programs.base, &filters.programs.last] {
                        let run = trace(program, call);
                        assert_eq!((run.action, run.looked), (Action::Allow, false), "{arch:?} {number}");
                    }
                    free += 1;
                }
            }
            assert!(free > 100, "{arch:?} {profile:?}: {free}");
        }
    }
}
