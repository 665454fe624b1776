//! The launcher as a target of a supervisor that was taken over.

use std::os::fd::AsFd;

use cloister_ipc::codec;
use cloister_ipc::launch::{FromLauncher, NetworkSpec, Spec, ToLauncher, Wall};
use cloister_ipc::limits::LAUNCH_BYTES;

use crate::target::{Target, configure, noise, spec};

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
        let status = target.end();
        assert!(status.code().is_some(), "seed {seed}: it crashed: {status}");
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
    for order in orders {
        let record = codec::encode(&order, LAUNCH_BYTES).unwrap();
        for at in (0..record.len().min(120)).step_by(step) {
            let target = Target::configured();
            let mut changed = record.clone();
            changed[at] ^= 0xff;
            target.raw(&changed, &[]);
            for name in target.children() {
                assert!(name.starts_with("sandbox-runner"), "it runs {name}");
            }
            let status = target.end();
            assert!(status.code().is_some(), "{order:?} at {at}: it crashed: {status}");
        }
    }
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
