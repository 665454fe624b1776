//! Ends what is idle, retired or too much; tells what lives.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::{Fate, Instance, Pool};
use crate::registry::{Contract, WorkerId};

/// How often the pool is looked over.
const INTERVAL: Duration = Duration::from_secs(1);

/// Processes ended in a row, and the pause after: many namespaces torn down at once stall starts.
const BATCH: usize = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// How a process is to be ended.
enum End {
    /// When it still has nothing to do.
    UnlessBusy(Fate),
    /// With all it has to do.
    Whatever(Fate),
}

/// A live process, for people.
#[derive(Debug, Clone, Serialize)]
pub struct LiveWorker {
    /// Namespace; absent for a Worker of the account.
    pub namespace: Option<String>,
    /// Name.
    pub worker: String,
    /// Version.
    pub version: String,
    /// Contract.
    pub contract: Contract,
    /// Host pid.
    pub pid: i32,
    /// Age, milliseconds.
    pub uptime_ms: u64,
    /// Since its last request, milliseconds; 0 while it has one.
    pub idle_ms: u64,
    /// Invocations that are not over.
    pub in_flight: u32,
    /// Invocations it ever had.
    pub invocations: u64,
    /// CPU time used, microseconds.
    pub cpu_us: u64,
    /// Memory that its cgroup is charged with, bytes: all of its processes, its files in `/tmp`, what the kernel keeps
    /// for it. Without cgroups its resident pages.
    pub memory_bytes: u64,
    /// It takes no new requests.
    pub draining: bool,
    /// What was really enforced.
    pub walls: serde_json::Value,
}

/// A live process and what the kernel says of it.
#[derive(Debug, Clone, Serialize)]
pub struct Inspected {
    /// The process.
    #[serde(flatten)]
    pub process: LiveWorker,
    /// What the kernel says, and where that is not what was promised.
    #[serde(flatten)]
    pub inspection: crate::launch::Inspection,
}

impl Pool {
    /// Looks after the pool for ever; run it once, on the control plane's runtime.
    pub async fn keep(self) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let doomed = self.doomed();
            for batch in doomed.chunks(BATCH) {
                for (instance, end) in batch {
                    match end {
                        End::Whatever(fate) => instance.kill(fate.clone()),
                        // It may have got a request since it was looked at.
                        End::UnlessBusy(fate) => instance.kill_unless_busy(fate.clone()),
                    }
                }
                if doomed.len() > BATCH {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// What is to be ended now.
    fn doomed(&self) -> Vec<(Arc<Instance>, End)> {
        let now = self.milliseconds();
        let mut doomed = Vec::new();
        let mut idle = Vec::new();
        let (mut used, budget) = (0, self.0.options.memory_bytes);
        for instance in self.instances() {
            let since = Duration::from_millis(now.saturating_sub(instance.last_used.load(Ordering::Relaxed)));
            let draining = instance.draining.get();
            let busy = !instance.is_idle();
            // From its replacement on, not from the last request that ended: those would let it live as long as there
            // are others.
            if busy && draining.is_some_and(|since| since.elapsed() > self.0.options.drain) {
                doomed.push((instance, End::Whatever(Fate::Retired)));
                continue;
            }
            if draining.is_some() && !busy {
                doomed.push((instance, End::UnlessBusy(Fate::Retired)));
                continue;
            }
            if !busy && since > self.0.options.idle {
                doomed.push((instance, End::UnlessBusy(Fate::Idle)));
                continue;
            }
            if budget.is_some() {
                let own = memory(&instance);
                used += own;
                if !busy {
                    idle.push((since, own, instance));
                }
            }
        }
        if let Some(budget) = budget {
            idle.sort_by_key(|(since, ..)| std::cmp::Reverse(*since));
            for (_, own, instance) in idle {
                if used <= budget {
                    break;
                }
                used = used.saturating_sub(own);
                doomed.push((instance, End::UnlessBusy(Fate::Evicted)));
            }
        }
        doomed
    }

    /// Every live process.
    #[must_use]
    pub fn live(&self) -> Vec<LiveWorker> {
        self.instances().iter().map(|instance| self.describe(instance)).collect()
    }

    /// The live processes of one Worker, each looked at through the kernel's eyes. Not those that end
    /// meanwhile.
    pub async fn inspect(&self, worker: &WorkerId) -> Vec<Inspected> {
        let mut all = Vec::new();
        for instance in self.instances().into_iter().filter(|instance| instance.deployed.id == *worker) {
            if let Some(inspection) = instance.process.inspect().await {
                all.push(Inspected { process: self.describe(&instance), inspection });
            }
        }
        all
    }

    fn describe(&self, instance: &Arc<Instance>) -> LiveWorker {
        let now = self.milliseconds();
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let cpu = instance.process.cpu_time().unwrap_or_default();
        let in_flight = instance.open();
        let idle = now.saturating_sub(instance.last_used.load(Ordering::Relaxed));
        LiveWorker {
            namespace: instance.deployed.id.namespace.as_deref().map(str::to_owned),
            worker: instance.deployed.id.name.as_ref().to_owned(),
            version: instance.deployed.version.as_ref().to_owned(),
            contract: instance.deployed.contract,
            pid: instance.pid(),
            uptime_ms: milliseconds(instance.born.elapsed()),
            idle_ms: if in_flight > 0 { 0 } else { idle },
            in_flight,
            invocations: instance.calls(),
            cpu_us: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
            memory_bytes: memory(instance),
            draining: instance.draining.get().is_some(),
            walls: instance.process.walls(),
        }
    }

    /// Why a Worker's last start failed, or its last process died at once, while that is held
    /// against it.
    #[must_use]
    pub fn trouble(&self, worker: &WorkerId) -> Option<Arc<str>> {
        self.0.slots.read().unwrap_or_else(PoisonError::into_inner).get(worker)?.trouble()
    }

    /// Ends every process.
    pub fn end_all(&self) {
        for instance in self.instances() {
            instance.kill(Fate::Killed);
        }
    }

    /// Milliseconds on a clock that is a few of them late at most, and costs no more than a load: it is
    /// read at the end of each request.
    pub(super) fn milliseconds(&self) -> u64 {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map(Duration::from);
        u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
    }

    fn instances(&self) -> Vec<Arc<Instance>> {
        let slots: Vec<_> =
            self.0.slots.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        slots.iter().flat_map(|slot| slot.instances()).collect()
    }
}

/// Memory of a process, bytes: what its cgroup is charged with, or else its resident pages; 0 when it is over.
fn memory(instance: &Instance) -> u64 {
    instance.process.memory().unwrap_or_else(|| resident(instance.pid()))
}

/// Resident memory of a process, bytes; 0 when it is over.
fn resident(pid: i32) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/statm")) else { return 0 };
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0).saturating_mul(rustix::param::page_size() as u64)
}
