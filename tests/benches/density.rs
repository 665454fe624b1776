//! Memory of live idle Workers, the time to start them, and the latency of one of them while all live.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{self, Address};
use crate::cold::{self, Killed};
use crate::contestants::Target;
use crate::context::{Context, Failure};
use crate::load;
use crate::platform::{NAMESPACE, Platform, Settings, Upload};
use crate::procfs;
use crate::report::{Key, Report};
use crate::warm;

pub(crate) const GROUP: &str = "density";
pub(crate) const PLATFORM: &str = "cloister, SDK Worker";
/// All memory that the machine has less of for each that is live instead of only deployed.
pub(crate) const TOTAL: &str = "KiB each";
/// Of it, what the Workers' own pages take (shared pages by share).
const PSS: &str = "PSS KiB";
const SUPERVISOR: &str = "supervisor KiB";
const KERNEL: &str = "kernel KiB";
/// The same for each that is deployed; what its probe left behind counts.
const DEPLOYED: &str = "deployed, KiB each";
const START: &str = "starts/s";
/// Threads that ask for the first time.
const ASKERS: usize = 16;
/// Memory left alone, MiB: a count that would eat it is skipped.
const SPARE_KIB: u64 = 2 << 20;

/// The case of a count.
pub(crate) fn case(count: usize) -> String {
    format!("{count} idle")
}

/// Runs the counts, smallest first, in one platform.
pub(crate) fn run(context: &Context, report: &mut Report) -> Result<(), Failure> {
    let counts: &[usize] = if context.options.quick { &[100] } else { &[100, 1_000, 5_000, 10_000] };
    if context.takes_part("no sandbox") {
        peer(context, report, "no sandbox, static hyper", cold::server)?;
    }
    match context.peer("bwrap") {
        Err(error) => report.skip("bwrap", &error.to_string()),
        Ok(bwrap) if context.takes_part("bwrap") => {
            peer(context, report, "bwrap, static hyper", |p, s| cold::sandboxed(&bwrap, p, s, false))?;
        }
        Ok(_) => {}
    }
    if context.takes_part(PLATFORM)
        && let Err(error) = platform(context, report, counts)
    {
        report.skip(PLATFORM, &error.to_string());
    }
    Ok(())
}

fn platform(context: &Context, report: &mut Report, counts: &[usize]) -> Result<(), Failure> {
    let platform = Platform::start(context, "density", &Settings { blanks: 16, egress: None })?;
    let program = std::fs::read(context.static_binary("bench-worker")?)?;
    // What the first Worker costs once for all (its file in the page cache, allocators) is not counted.
    let deploy = |number: usize| {
        let name = format!("w{number}");
        let upload = Upload {
            namespace: Some(NAMESPACE),
            name: &name,
            program: &program,
            contract: "ipc",
            metadata: json!({}),
        };
        platform.deploy(&upload).map(drop)
    };
    deploy(0)?;
    platform.ask("w0", "/b/0")?;
    let mut live = 1;
    let supervisor = platform.supervisor();
    for count in counts {
        let wanted = (*count - live) as u64 * 512;
        if procfs::kernel_kib().get("MemAvailable").is_some_and(|free| *free < wanted + SPARE_KIB) {
            report.skip(&format!("{PLATFORM}, {}", case(*count)), "not enough memory on this machine");
            break;
        }
        eprintln!("deploying up to {count}");
        let empty = Memory::settled(&[], supervisor);
        parallel(live..*count, deploy)?;
        let before = Memory::settled(&platform.workers(), supervisor);
        eprintln!("starting up to {count}");
        let start = Instant::now();
        parallel(live..*count, |number| platform.ask(&format!("w{number}"), "/b/0").map(drop))?;
        let taken = start.elapsed();
        let case = case(*count);
        let key = |metric| Key { group: GROUP, case: &case, contestant: PLATFORM, metric };
        report.add(key(START), (*count - live) as f64 / taken.as_secs_f64());
        let now = Memory::settled(&platform.workers(), supervisor);
        report.add(key(DEPLOYED), empty.less(&before, "MemAvailable") / (*count - live) as f64);
        before.until(&now, *count - live, report, &case, PLATFORM);
        live = *count;
        let host = format!("w{}.user.test", count / 2);
        let target = Target { name: PLATFORM.into(), address: platform.front.clone(), host };
        let load = load::run(context, &target, warm::ALONE, context.seconds(), None)?;
        report.add(key("p50 µs, 1 connection"), load.p50_us);
        report.add(key("p99 µs, 1 connection"), load.p99_us);
    }
    Ok(())
}

/// A hundred processes of a peer, each asked once.
fn peer(
    context: &Context,
    report: &mut Report,
    name: &str,
    make: impl Fn(&std::path::Path, &std::path::Path) -> Command,
) -> Result<(), Failure> {
    const COUNT: usize = 100;
    let program = context.static_binary("bench-hyper")?;
    let folder = tempfile::tempdir_in(context.work.path())?;
    let before = Memory::settled(&[], 0);
    let mut children = Vec::new();
    for number in 0..COUNT {
        let at = folder.path().join(number.to_string());
        std::fs::create_dir(&at)?;
        let socket = at.join("s");
        let mut command = make(&program, &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        children.push(Killed(command.spawn()?));
        let address = Address::Unix(socket);
        let begin = Instant::now();
        while address.connect().is_err() {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(format!("{name} does not listen after 20 s").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        client::ask(&address, "bench.test", "/b/0", None)?;
    }
    let mut pids: Vec<u32> = children.iter().flat_map(|c| procfs::descendants(c.0.id())).collect();
    pids.extend(children.iter().map(|c| c.0.id()));
    before.until(&Memory::settled(&pids, 0), COUNT, report, &case(COUNT), name);
    Ok(())
}

/// Memory at one moment.
struct Memory {
    kernel: std::collections::BTreeMap<&'static str, u64>,
    pss: u64,
    supervisor: u64,
}

impl Memory {
    /// Waits until no more is freed or taken: what belonged to processes that ended, network namespaces above all,
    /// the kernel gives back later.
    fn settled(pids: &[u32], supervisor: u32) -> Self {
        const LOOK: Duration = Duration::from_millis(500);
        const STILL_KIB: u64 = 256;
        const LOOKS: usize = 40;
        let mut kernel = procfs::kernel_kib();
        for _ in 0..LOOKS {
            std::thread::sleep(LOOK);
            let now = procfs::kernel_kib();
            let free = |kernel: &std::collections::BTreeMap<_, u64>| kernel.get("MemAvailable").copied();
            let moved = free(&now).unwrap_or_default().abs_diff(free(&kernel).unwrap_or_default());
            kernel = now;
            if moved < STILL_KIB {
                break;
            }
        }
        let pss = |pid| procfs::pss_kib(pid).unwrap_or_default();
        Self { kernel, pss: pids.iter().map(|pid| pss(*pid)).sum(), supervisor: pss(supervisor) }
    }

    fn of(&self, name: &str) -> f64 {
        self.kernel.get(name).copied().unwrap_or_default() as f64
    }

    /// How much less of `name` there is in `later`, KiB.
    fn less(&self, later: &Self, name: &str) -> f64 {
        self.of(name) - later.of(name)
    }

    /// What `count` more processes took until `now`.
    fn until(&self, now: &Self, count: usize, report: &mut Report, case: &str, contestant: &str) {
        let mut add = |metric, kib: f64| {
            report.add(Key { group: GROUP, case, contestant, metric }, kib / count.max(1) as f64);
        };
        add(TOTAL, self.less(now, "MemAvailable"));
        add(PSS, now.pss as f64 - self.pss as f64);
        if now.supervisor > 0 {
            add(SUPERVISOR, now.supervisor as f64 - self.supervisor as f64);
        }
        let kernel = ["SUnreclaim", "PageTables", "KernelStack", "Percpu"];
        add(KERNEL, kernel.map(|name| now.of(name) - self.of(name)).iter().sum());
    }
}

/// Does `work` for each number on a few threads; the first failure is what comes out.
pub(crate) fn parallel(
    numbers: std::ops::Range<usize>,
    work: impl Fn(usize) -> Result<(), Failure> + Sync,
) -> Result<(), Failure> {
    let next = std::sync::atomic::AtomicUsize::new(numbers.start);
    let failure = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..ASKERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if number >= numbers.end {
                        return;
                    }
                    if let Err(error) = work(number) {
                        next.store(numbers.end, std::sync::atomic::Ordering::Relaxed);
                        failure
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}
