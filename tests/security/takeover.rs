//! A supervisor that was taken over: what it gets out of the launcher at the most. The document's
//! list (THREAT-MODEL, "the supervisor sees everything") is the committed table of this.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use cloister_ipc::launch::{CgroupSpec, FromBlank, NetworkSpec, SOCKETS, Spec, Start, ToBlank, ToLauncher};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use rustix::fs::{Mode, OFlags};

use crate::cell::stored;
use crate::host::Host;
use crate::target::{Target, hear, noise, spec};

/// A filter of one instruction: everything is allowed.
pub(crate) fn no_filter() -> Vec<u8> {
    let mut program = vec![6, 0, 0, 0];
    program.extend_from_slice(&0x7fff_0000_u32.to_ne_bytes());
    program
}

pub(crate) fn start(args: &[String]) -> Start {
    Start {
        argv: std::iter::once("worker".to_owned()).chain(args.iter().cloned()).collect(),
        env: vec!["PORT=8080".into()],
        interpreter: None,
        bind: (1..=10).collect(),
        connect: vec![80, 443, 8080],
        listen: None,
        control: false,
        files: false,
        last: no_filter(),
    }
}

pub(crate) fn binary(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

/// Has a blank become a Worker.
pub(crate) fn tell_start(socket: &OwnedFd, message: Start, fds: &[BorrowedFd<'_>]) {
    let record = codec::encode(&ToBlank::Start(message), LAUNCH_BYTES).unwrap();
    // It may be over already.
    let _ = descriptors::send(socket, &record, fds);
}

/// Runs a hostile program with every right that the launcher's orders can give it; its output.
fn run(target: &Target, number: u64, program: &'static str, args: &[String]) -> String {
    let spec = Spec { base: no_filter(), jit: true, processes: true, ..spec() };
    let socket = target.blank(number, spec).unwrap();
    let (mut output, theirs) = std::io::pipe().unwrap();
    let binary = binary(&stored(program, false));
    tell_start(&socket, start(args), &[binary.as_fd(), theirs.as_fd(), theirs.as_fd()]);
    drop(theirs);
    let told = hear::<FromBlank>(&socket);
    assert!(matches!(told, Some((FromBlank::Raised { .. }, _))), "{told:?}");
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    text
}

/// What may be tried without any filter of the policy, by name.
fn got_through() -> BTreeSet<String> {
    let target = Target::configured();
    let secret = tempfile::NamedTempFile::new().unwrap();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let pid = std::process::id().to_string();
    let secret = secret.path().display().to_string();
    let account = accounts.lines().last().unwrap().to_owned();
    let programs: [(&str, Vec<String>); 4] = [
        ("files", vec![secret, account]),
        ("network", vec![port, "nothing".into(), "/nothing".into()]),
        ("processes", vec![pid]),
        ("doors", Vec::new()),
    ];
    let mut through = BTreeSet::new();
    let mut number = 0;
    for (program, args) in programs {
        let mut next = 0;
        loop {
            number += 1;
            let args: Vec<_> = std::iter::once(next.to_string()).chain(args.iter().cloned()).collect();
            let text = run(&target, number, program, &args);
            for line in text.lines().filter(|line| *line != "end") {
                // A probe that ended it, or that changed what it writes to.
                let Some((at, rest)) = line.split_once(' ') else { continue };
                let Ok(at) = at.parse::<usize>() else { continue };
                next = at + 1;
                if let Some((name, result)) = rest.rsplit_once(" = ")
                    && result.starts_with("ok")
                {
                    through.insert(format!("{program}: {name}"));
                }
            }
            if text.lines().any(|line| line == "end") {
                break;
            }
            assert!(number < 200, "{program} does not come to its end: {text}");
        }
    }
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "the host's loopback was reached");
    let status = target.end();
    assert!(status.success(), "{status}");
    through
}

/// Of the committed table, what the kernel lets through only on a processor that can refuse `cpuid`.
const NEEDS_CPUID_FAULTING: &str = "doors: ARCH_SET_CPUID";

/// Whether this machine's processor can refuse `cpuid`.
fn cpuid_faults() -> bool {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = about.lines().find(|line| line.starts_with("flags"));
    flags.expect("the processor's flags").split_whitespace().any(|flag| flag == "cpuid_fault")
}

#[test]
fn without_a_filter_it_is_still_nobody() {
    let host = Host::before();
    let through = got_through();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("security/snapshots/takeover.txt");
    let head = "# What gets through when the supervisor gives a Worker no filter: in namespaces of its own, as nobody.";
    let text =
        |names: &BTreeSet<String>| names.iter().fold(format!("{head}\n"), |text, name| text + name + "\n");
    if std::env::var_os("CLOISTER_BLESS").is_some() {
        let mut all = through.clone();
        all.insert(NEEDS_CPUID_FAULTING.into());
        std::fs::write(&path, text(&all)).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let names = committed.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
    let mut known: BTreeSet<_> = names.collect();
    assert_eq!(committed, text(&known), "the table is not in order");
    if !cpuid_faults() {
        assert!(known.remove(NEEDS_CPUID_FAULTING));
    }
    // An older kernel lacks some of it. What only it lets pass: landlock of 6.1 hears nothing of a whiteout (a node that
    // opens nothing, on a nodev mount), and with Yama, which Debian has, a process may name its own tracers.
    let other = std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some();
    if other {
        known.extend(["files: mknod a whiteout".into(), "processes: PR_SET_PTRACER".into()]);
    }
    let more: Vec<_> = through.difference(&known).collect();
    let fewer: Vec<_> = known.difference(&through).collect();
    assert!(
        more.is_empty() && (other || fewer.is_empty()),
        "got through, and is not committed: {more:#?}; is committed, and did not get through: {fewer:#?}"
    );
    host.unchanged();
}

/// A number of the input's, around what the field's bounds may be.
fn bound(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let around = [
        0,
        1,
        2,
        7,
        100,
        4095,
        4096,
        10_000,
        10_001,
        1 << 20,
        64 << 20,
        u64::from(u32::MAX),
        i64::MAX as u64,
    ];
    let choice = usize::from(bytes.next().unwrap());
    around.get(choice % (around.len() + 1)).copied().unwrap_or(u64::MAX)
}

/// An order of any kind, each field at or behind its bounds.
fn order(bytes: &mut impl Iterator<Item = u8>, number: u64) -> ToLauncher {
    let low = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let blank = match bytes.next().unwrap() % 4 {
        0 => bound(bytes),
        _ => number,
    };
    match bytes.next().unwrap() % 8 {
        0 => ToLauncher::Kill { blank },
        1 => ToLauncher::Sockets { blank, count: bytes.next().unwrap() },
        2 => ToLauncher::Inspect { blank },
        _ => {
            let mut odd = |usual: u64| if bytes.next().unwrap() < 64 { bound(bytes) } else { usual };
            let mut made = Spec {
                tmp_bytes: odd(1 << 20),
                app_bytes: odd(0),
                cgroup: CgroupSpec {
                    memory_bytes: odd(16 << 20),
                    pids: low(odd(8)),
                    cpu_percent: low(odd(50)),
                    cpu_weight: low(odd(100)),
                },
                ..spec()
            };
            let flags = bytes.next().unwrap();
            made.libraries = flags & 1 != 0;
            made.jit = flags & 2 != 0;
            made.processes = flags & 4 != 0;
            let sockets = bytes.next().unwrap();
            made.network = (flags & 8 != 0).then_some(NetworkSpec { sockets: sockets % (SOCKETS + 5) });
            match flags >> 5 {
                0 => made.base.truncate(usize::from(bytes.next().unwrap())),
                1 => made.base = bytes.by_ref().take(800).collect(),
                2 => made.base = no_filter().repeat(4096),
                3 => made.base = no_filter().repeat(4097),
                _ => {}
            }
            ToLauncher::Make { blank, spec: made }
        }
    }
}

/// Orders by chance, many to one launcher: it refuses them or ends, and runs nothing of its own.
#[test]
fn orders_by_chance_give_nothing() {
    let seeds: u64 = if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() { 2 } else { 12 };
    let host = Host::before();
    let mut made = 0;
    for seed in 1..=seeds {
        let target = Target::configured();
        let mut bytes = noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for number in 1..=40 {
            target.say(&order(&mut bytes, number), &[]);
        }
        let goes_on = target.settle(|uid| {
            assert!(uid > 1_000_000, "seed {seed}: uid {uid}");
            made += 1;
        });
        println!("seed {seed}");
        assert_eq!(target.end().success(), goes_on);
    }
    println!("{made} blanks made");
    assert!(made > seeds, "only {made} blanks were made");
    host.unchanged();
}

/// A folder of the host among what a start brings would be a way past the root and past landlock, a loader outside
/// of the library folders a right to execute there. Nothing of either becomes a Worker.
#[test]
fn nothing_of_another_kind_is_given_to_a_worker() {
    let target = Target::configured();
    let program = binary(&stored("processes_twin", false));
    let folder = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let (_output, pipe) = std::io::pipe().unwrap();
    let (program, folder, pipe) = (program.as_fd(), folder.as_fd(), pipe.as_fd());
    let control = || Start { control: true, ..start(&["0".into()]) };
    let files = || Start { files: true, ..start(&["0".into()]) };
    let loader = |path: &str| Start { interpreter: Some(path.into()), ..start(&["0".into()]) };
    for (number, (message, fds)) in (1..).zip([
        (start(&["0".into()]), vec![folder, pipe, pipe]),
        (start(&["0".into()]), vec![program, folder, pipe]),
        (start(&["0".into()]), vec![program, pipe, folder]),
        (control(), vec![program, pipe, pipe, folder]),
        (control(), vec![program, pipe, pipe, program]),
        (files(), vec![program, pipe, pipe, folder]),
        (loader("/proc/self/fd/64"), vec![program, pipe, pipe]),
        (loader("/lib/../proc/self/exe"), vec![program, pipe, pipe]),
        (loader("/"), vec![program, pipe, pipe]),
        (loader("/usr/lib"), vec![program, pipe, pipe]),
    ]) {
        let socket = target.blank(number, Spec { proc: true, libraries: true, ..spec() }).unwrap();
        tell_start(&socket, message, &fds);
        let told = hear::<FromBlank>(&socket);
        assert!(matches!(told, Some((FromBlank::Failed(_), _))), "start {number}: {told:?}");
    }
    assert!(target.end().success());
}

/// A filter that says of a call that it happened would be a wall that only seems to stand: a blank takes none, whichever
/// of the calls it is that raise the walls behind it.
#[test]
fn no_filter_may_lie() {
    let target = Target::configured();
    // Loads the number; the call gets this answer, every other is allowed.
    let lying = |number: u32, answer: u32| {
        let instructions =
            [(0x20u16, 0u16, 0), (0x15, 0x0100, number), (0x06, 0, answer), (0x06, 0, 0x7fff_0000)];
        let bytes = |(code, jumps, k): (u16, u16, u32)| {
            let [a, b] = code.to_ne_bytes();
            let [jt, jf] = jumps.to_ne_bytes();
            [&[a, b, jt, jf][..], &k.to_ne_bytes()].concat()
        };
        instructions.map(bytes).concat()
    };
    let calls = [nix::libc::SYS_landlock_restrict_self, nix::libc::SYS_close_range, nix::libc::SYS_prlimit64];
    let mut blank = 0;
    for call in calls {
        let call = u32::try_from(call).unwrap();
        for answer in [0x0005_0000, 0x7fc0_0000, 0x7ff0_0000, 0x0003_0000] {
            blank += 1;
            let refused = target.blank(blank, Spec { base: lying(call, answer), ..spec() }).unwrap_err();
            assert!(refused.what.contains("may only allow"), "{refused:?}");
        }
        // The same with an error that is one: the blank sees that its wall does not stand.
        blank += 1;
        let socket = target.blank(blank, Spec { base: lying(call, 0x0005_0016), ..spec() }).unwrap();
        let (_output, pipe) = std::io::pipe().unwrap();
        let program = binary(&stored("processes_twin", false));
        tell_start(&socket, start(&["0".into()]), &[program.as_fd(), pipe.as_fd(), pipe.as_fd()]);
        let told = hear::<FromBlank>(&socket);
        assert!(matches!(told, Some((FromBlank::Failed(_), _))), "{call}: {told:?}");
    }
    assert!(target.end().success());
}

/// Starts by chance: wrong descriptors, paths, ports, filters. The blank refuses and ends, or runs the
/// binary behind its walls; the launcher goes on.
#[test]
fn starts_by_chance_give_nothing() {
    let turns: u64 = if std::env::var_os("CLOISTER_TEST_OTHER_KERNEL").is_some() { 36 } else { 120 };
    let target = Target::configured();
    let program = stored("processes_twin", false);
    let (mut ran, mut refused) = (0, 0);
    for turn in 1..=turns {
        let mut bytes = noise(turn.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut byte = || usize::from(bytes.next().unwrap());
        let socket = target.blank(turn, spec()).unwrap();
        let mut message = start(&["0".into()]);
        let odd = byte() % 12;
        match odd {
            0 => {
                message.interpreter =
                    Some(["/", "/bin/sh", "/proc/1/root", "", "../../bin/sh"][byte() % 5].into())
            }
            1 => message.argv = vec!["x".repeat(100_000)],
            2 => message.env = vec!["LD_PRELOAD=/tmp/x.so".into(), "\0".into()],
            3 => message.last = (0..byte() * 8).map(|at| u8::try_from(at % 251).unwrap()).collect(),
            4 => message.bind = (0..=u16::MAX).step_by(7).collect(),
            5 => message.listen = Some(u16::try_from(byte()).unwrap()),
            6 => message.control = true,
            7 => message.files = true,
            8 => message.argv.clear(),
            _ => {}
        }
        let (mut output, theirs) = std::io::pipe().unwrap();
        let folder = File::open("/etc").unwrap();
        let shell = binary(Path::new("/bin/sh"));
        let good = binary(&program);
        let first = match byte() % 8 {
            // A program that the Worker could read, a folder, a pipe, a device.
            0 => shell.as_fd(),
            1 => folder.as_fd(),
            2 => theirs.as_fd(),
            _ => good.as_fd(),
        };
        let mut fds = vec![first, theirs.as_fd(), theirs.as_fd()];
        match byte() % 10 {
            0 => fds.truncate(byte() % 3),
            1 => fds.extend(vec![folder.as_fd(); byte() % 20]),
            _ => {}
        }
        if odd == 9 {
            let mut record = codec::encode(&ToBlank::Start(message), LAUNCH_BYTES).unwrap();
            let at = (byte() * 256 + byte()) % record.len();
            record[at] ^= u8::try_from(byte().max(1)).unwrap();
            let _ = descriptors::send(&socket, &record, &fds);
        } else if let Ok(record) = codec::encode(&ToBlank::Start(message), LAUNCH_BYTES) {
            let _ = descriptors::send(&socket, &record, &fds);
        }
        drop(fds);
        drop(theirs);
        let mut raised = false;
        while let Some((told, _)) = hear::<FromBlank>(&socket) {
            match told {
                FromBlank::Raised { .. } => raised = true,
                FromBlank::Failed(_) => raised = false,
                FromBlank::Ready => panic!("turn {turn}: ready twice"),
            }
        }
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert!(text.is_empty() || raised, "turn {turn}: it ran without its walls: {text}");
        assert!(text.is_empty() || text.starts_with("0 a thread"), "turn {turn}: something else ran: {text}");
        if text.is_empty() { refused += 1 } else { ran += 1 }
    }
    println!("{ran} ran, {refused} were refused");
    assert!(ran > turns / 12 && refused > turns / 6, "{ran} ran, {refused} were refused");
    let status = target.end();
    assert!(status.success(), "{status}");
}
