//! The launcher as a target of a supervisor that was taken over.

use std::os::fd::AsFd;
use std::path::Path;

use cloister_ipc::codec;
use cloister_ipc::launch::{FromBlank, FromLauncher, NetworkSpec, Spec, ToLauncher, Wall};
use cloister_ipc::limits::LAUNCH_BYTES;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::target::{Target, configure, hear, noise, spec};

#[test]
fn garbage_ends_it_or_is_refused() {
    let seeds: u64 = if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() { 6 } else { 40 };
    for seed in 1..seeds {
        let target = if seed % 2 == 0 { Target::configured() } else { Target::start() };
        let length = usize::try_from(seed * seed * 7 % 3000).unwrap();
        let record: Vec<u8> = noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).take(length.max(1)).collect();
        let null = std::fs::File::open("/dev/null").unwrap();
        let fds = vec![null.as_fd(); usize::try_from(seed % 32).unwrap()];
        target.raw(&record, &fds);
        println!("seed {seed}: {}", target.end());
    }
}

/// Every byte of valid orders, changed.
#[test]
fn changed_orders_never_crash_it() {
    let orders = [
        ToLauncher::Make { blank: 1, spec: spec() },
        ToLauncher::Sockets { blank: 1, count: 4 },
        ToLauncher::Inspect { blank: 1 },
        ToLauncher::Kill { blank: 1 },
        configure(vec![Wall::Landlock]),
    ];
    // An emulated machine takes a second for each of these.
    let step = if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() { 40 } else { 1 };
    let (mut made, mut refused, mut went_on) = (0, 0, 0);
    for order in orders {
        let record = codec::encode(&order, LAUNCH_BYTES).unwrap();
        for at in (0..record.len().min(120)).step_by(step) {
            let target = Target::configured();
            let mut changed = record.clone();
            changed[at] ^= 0xff;
            target.raw(&changed, &[]);
            let goes_on = target.settle(|_| made += 1);
            println!("byte {at} of {order:?}");
            let status = target.end();
            assert_eq!(status.success(), goes_on, "{status}");
            if goes_on { went_on += 1 } else { refused += 1 }
        }
    }
    println!("{made} blanks made, {refused} launchers ended, {went_on} went on");
    assert!(made > 0 && refused > 0 && went_on > 0, "the changes reached nothing");
}

/// Walls are waived once, before anything runs: a second configuration ends it, and what it made.
#[test]
fn no_wall_can_be_waived_later() {
    let target = Target::configured();
    let (start, pid) = target.blank_with_pid(1, spec()).unwrap();
    let blank = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    let mut ended = [PollFd::new(&blank, PollFlags::IN)];
    assert_eq!(poll(&mut ended, Some(&Timespec::default())), Ok(0), "the blank waits");
    target.say(&configure(vec![Wall::Landlock]), &[]);
    let said = target.hear();
    assert!(said.is_none(), "{said:?}");
    assert!(hear::<FromBlank>(&start).is_none(), "the blank goes on");
    let status = target.end();
    assert_eq!(status.code(), Some(1), "{status}");
    assert_eq!(poll(&mut ended, Some(&Timespec::default())), Ok(1), "the blank outlives its launcher");
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the blank is left, dead");
}

#[test]
fn senseless_orders_are_refused() {
    let target = Target::configured();
    for blank in [0, 7, u64::MAX] {
        target.say(&ToLauncher::Kill { blank }, &[]);
        target.say(&ToLauncher::Sockets { blank, count: 255 }, &[]);
        target.say(&ToLauncher::Inspect { blank }, &[]);
    }
    let mut wrong = Vec::new();
    for change in [
        (|spec: &mut Spec| spec.base.clear()) as fn(&mut Spec),
        |spec| spec.base = vec![0; 4096 * 8 + 8],
        |spec| spec.cgroup.pids = 0,
        |spec| spec.cgroup.memory_bytes = 0,
        |spec| spec.tmp_bytes = 0,
        |spec| spec.network = Some(NetworkSpec { sockets: 255 }),
    ] {
        let mut changed = spec();
        change(&mut changed);
        wrong.push(changed);
    }
    let count = wrong.len();
    for (number, spec) in wrong.into_iter().enumerate() {
        target.say(&ToLauncher::Make { blank: 100 + number as u64, spec }, &[]);
    }
    let mut failed = 0;
    while failed < count {
        match target.hear().expect("it goes on") {
            FromLauncher::MakeFailed { .. } => failed += 1,
            FromLauncher::SocketsFailed { .. } => {}
            // It looks at nobody but its own children.
            FromLauncher::InspectFailed { errno, .. } => assert_eq!(errno, nix::libc::ESRCH),
            other => panic!("{other:?}"),
        }
    }
    // And still works.
    target.say(&ToLauncher::Make { blank: 1000, spec: spec() }, &[]);
    assert!(matches!(target.hear(), Some(FromLauncher::Made { .. })));
    assert!(target.end().success());
}

/// A filter that is no filter: the blank fails, nothing runs without one.
#[test]
fn a_filter_that_is_none_stops_the_blank() {
    let target = Target::configured();
    let broken = Spec { base: vec![0xff; 80], ..spec() };
    target.say(&ToLauncher::Make { blank: 1, spec: broken }, &[]);
    loop {
        match target.hear().expect("it goes on") {
            FromLauncher::Made { .. } => {}
            FromLauncher::Exited(exited) => {
                assert_eq!(exited.blank, 1);
                break;
            }
            FromLauncher::MakeFailed { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(target.end().success());
}
