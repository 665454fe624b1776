//! A launcher that is spoken to by hand, as by a supervisor that was taken over.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cloister_ipc::launch::{
    CgroupSpec, Configure, Failure, FromBlank, FromLauncher, NetworkSpec, Spec, ToLauncher, Wall,
};
use cloister_ipc::limits::LAUNCH_BYTES;
use cloister_ipc::{codec, descriptors};
use cloister_policies::seccomp::{self, Profile};
use cloister_supervisor::launch::Runner;
use cloister_tests::program;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::de::DeserializeOwned;

use crate::cell::uid_base;

/// A launcher that is spoken to by hand.
pub(crate) struct Target {
    child: Child,
    socket: OwnedFd,
}

impl Target {
    pub(crate) fn start() -> Self {
        let Runner { child, socket } = Runner::spawn(&program("sandbox-runner")).unwrap();
        Self { child, socket }
    }

    pub(crate) fn configured() -> Self {
        let target = Self::start();
        target.say(&configure(crate::cell::waived()), &[]);
        assert!(matches!(target.hear(), Some(FromLauncher::Ready(_))));
        target
    }

    pub(crate) fn say(&self, message: &ToLauncher, fds: &[BorrowedFd<'_>]) {
        self.raw(&codec::encode(message, LAUNCH_BYTES).unwrap(), fds);
    }

    pub(crate) fn raw(&self, record: &[u8], fds: &[BorrowedFd<'_>]) {
        // It may have gone already, for what was said before.
        let _ = descriptors::send(&self.socket, record, fds);
    }

    /// Its next message; `None` when it is gone.
    pub(crate) fn hear(&self) -> Option<FromLauncher> {
        self.hear_all().map(|(message, _)| message)
    }

    /// With the descriptors that came.
    pub(crate) fn hear_all(&self) -> Option<(FromLauncher, Vec<OwnedFd>)> {
        hear(&self.socket)
    }

    /// A blank, behind its first walls and ready to be started; an error when it came to nothing.
    pub(crate) fn blank(&self, number: u64, spec: Spec) -> Result<OwnedFd, Failure> {
        self.blank_with_pid(number, spec).map(|(start, _)| start)
    }

    /// As [`Self::blank`], and its pid.
    pub(crate) fn blank_with_pid(&self, number: u64, spec: Spec) -> Result<(OwnedFd, i32), Failure> {
        self.say(&ToLauncher::Make { blank: number, spec }, &[]);
        let (start, pid) = loop {
            match self.hear_all().expect("the launcher goes on") {
                (FromLauncher::Made { blank, pid, .. }, mut start) if blank == number => {
                    break (start.pop().unwrap(), pid);
                }
                (FromLauncher::MakeFailed { blank, failure }, _) if blank == number => return Err(failure),
                _ => {}
            }
        };
        match hear(&start) {
            Some((FromBlank::Ready, _)) => Ok((start, pid)),
            Some((FromBlank::Failed(failure), _)) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until it has handled all that was said, and what it made has raised its walls or ended.
    /// True when it goes on.
    pub(crate) fn settle(&self, mut made: impl FnMut(u32)) -> bool {
        const LAST: u64 = u64::MAX - 1;
        self.say(&ToLauncher::Inspect { blank: LAST }, &[]);
        let mut blanks = Vec::new();
        let goes_on = loop {
            match self.hear_all() {
                Some((FromLauncher::Made { uid, .. }, start)) => {
                    made(uid);
                    blanks.extend(start);
                }
                Some((FromLauncher::InspectFailed { blank: LAST, .. }, _)) => break true,
                Some(_) => {}
                None => break false,
            }
        };
        for start in &blanks {
            let told = hear::<FromBlank>(start);
            assert!(!matches!(told, Some((FromBlank::Raised { .. }, _))), "it ran without being told to");
        }
        // Their sockets close from here on, and they end.
        for name in self.children() {
            assert!(name.starts_with("sandbox-runner"), "it runs {name}");
        }
        goes_on
    }

    /// Ends it; everything that it made must be gone with it. Its status is success or failure: a
    /// panic or a signal is a crash.
    pub(crate) fn end(mut self) -> ExitStatus {
        drop(self.socket);
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(matches!(status.code(), Some(0 | 1)), "it crashed: {status}");
                return status;
            }
            assert!(Instant::now() < end, "the launcher does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Programs that its children run.
    pub(crate) fn children(&self) -> Vec<String> {
        let path = format!("/proc/{0}/task/{0}/children", self.child.id());
        let pids = std::fs::read_to_string(path).unwrap_or_default();
        let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        pids.split_whitespace().map(name).filter(|name| !name.is_empty()).collect()
    }
}

/// The next message on a socket; `None` at its end.
pub(crate) fn hear<M: DeserializeOwned>(socket: &OwnedFd) -> Option<(M, Vec<OwnedFd>)> {
    let mut fds = [PollFd::new(socket, PollFlags::IN)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 30, tv_nsec: 0 })).unwrap();
    assert!(ready > 0, "the other side is silent");
    let mut buffer = vec![0; LAUNCH_BYTES];
    let (length, received) = descriptors::receive(socket, &mut buffer).ok()?;
    (length > 0).then(|| (codec::decode(&buffer[..length], LAUNCH_BYTES).unwrap(), received))
}

pub(crate) fn configure(waived: Vec<Wall>) -> ToLauncher {
    ToLauncher::Configure(Configure { uid_base: uid_base(), uid_count: 8, waived })
}

pub(crate) fn spec() -> Spec {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let profile = Profile { contract: seccomp::Contract::Http, processes: false, jit: true };
        seccomp::compile(&profile).unwrap().base
    });
    Spec {
        libraries: false,
        proc: false,
        network: Some(NetworkSpec { sockets: 1 }),
        tmp_bytes: 1 << 20,
        app_bytes: 0,
        cgroup: CgroupSpec { memory_bytes: 16 << 20, pids: 8, cpu_percent: 50, cpu_weight: 100 },
        jit: true,
        processes: false,
        base: base.clone(),
    }
}

/// Numbers without a pattern, the same every time.
pub(crate) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed | 1;
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes()[3])
    })
}
