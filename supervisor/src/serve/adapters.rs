//! The data plane and the egress filter as the control plane knows them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::admin;
use crate::egress::Egress;
use crate::pool::Pool;
use crate::registry::{Binding, Deployed, Registry, WorkerId};
use crate::telemetry::{Detail, Telemetry};

/// Lines of output that the owner of a Worker that did not start is shown.
const LINES: usize = 10;
/// How long to wait for the output of a process that just ended.
const OUTPUT_TIME: Duration = Duration::from_millis(250);

/// The pool, with the telemetry that holds the Workers' output.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    pub(super) pool: Pool,
    pub(super) telemetry: Telemetry,
}

impl admin::Pool for Processes {
    fn probe(
        &self,
        deployed: &Arc<Deployed>,
    ) -> BoxFuture<'static, Result<admin::Startup, admin::ProbeFailure>> {
        let (this, deployed) = (self.clone(), Arc::clone(deployed));
        Box::pin(async move {
            match this.pool.probe(&deployed).await {
                Ok(startup) => Ok(admin::Startup { startup_ms: startup.startup_ms, walls: startup.walls }),
                Err(error) => {
                    let mut message = format!("the Worker did not start: {error}");
                    let output = this.output(&deployed).await;
                    if !output.is_empty() {
                        message = format!("{message}\nits last output:\n  {}", output.join("\n  "));
                    }
                    Err(admin::ProbeFailure(message))
                }
            }
        })
    }

    fn retire(&self, worker: &WorkerId) {
        self.pool.retire(worker);
    }

    fn live(&self) -> Vec<Value> {
        self.pool.live().iter().filter_map(|live| serde_json::to_value(live).ok()).collect()
    }

    fn inspect(&self, worker: &WorkerId) -> BoxFuture<'static, Vec<Value>> {
        let (pool, worker) = (self.pool.clone(), worker.clone());
        Box::pin(async move {
            let inspected = pool.inspect(&worker).await;
            inspected.iter().filter_map(|one| serde_json::to_value(one).ok()).collect()
        })
    }

    fn trouble(&self, worker: &WorkerId) -> Option<String> {
        self.pool.trouble(worker).map(|text| text.as_ref().to_owned())
    }
}

impl Processes {
    /// What the version wrote last. Its pipes may still hold lines when its end is known already.
    async fn output(&self, deployed: &Deployed) -> Vec<String> {
        let lines = || {
            let events = self.telemetry.recent(&deployed.id);
            let of_it = events.iter().filter(|event| event.version == deployed.version);
            let mut lines: Vec<_> = of_it
                .filter_map(|event| match &event.detail {
                    Detail::Output { line, .. } => Some(line.clone()),
                    _ => None,
                })
                .collect();
            lines.drain(..lines.len().saturating_sub(LINES));
            lines
        };
        let until = tokio::time::Instant::now() + OUTPUT_TIME;
        loop {
            let found = lines();
            if !found.is_empty() || tokio::time::Instant::now() >= until {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The egress filter.
#[derive(Debug)]
pub(super) struct Filter(pub(super) Arc<Egress>);

impl admin::Egress for Filter {
    fn decisions(&self, worker: &WorkerId) -> Vec<Value> {
        self.0
            .decisions_of(worker)
            .iter()
            .filter_map(|decision| serde_json::to_value(decision).ok())
            .collect()
    }

    fn policies(&self) -> Vec<Value> {
        self.0.policies().iter().filter_map(|policy| serde_json::to_value(policy).ok()).collect()
    }
}

/// The secret bindings of deployed Workers, for `${secret:NAME}` in policies.
pub(super) fn secrets(registry: Registry) -> impl Fn(&WorkerId, &str) -> Option<String> + Send + Sync {
    move |worker, name| match registry.get(worker)?.bindings.get(name)? {
        Binding::Secret(text) => Some(text.clone()),
        _ => None,
    }
}
