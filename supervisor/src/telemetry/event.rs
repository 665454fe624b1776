//! One event, and its log line.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

use crate::outcome::{Failure, Outcome};
use crate::registry::WorkerId;

/// Something that happened to a Worker.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// When it ended, milliseconds since 1970.
    #[serde(serialize_with = "milliseconds")]
    pub time: SystemTime,
    /// Whose.
    #[serde(serialize_with = "display")]
    pub worker: WorkerId,
    /// Its version; empty when there is none.
    pub version: Arc<str>,
    /// What.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Detail {
    /// An invocation ended.
    Invocation(Invocation),
    /// The Worker wrote a line.
    Output {
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// The line, without its end; cut when it was too long.
        line: String,
    },
    /// Its process started, failed to, or ended.
    Process {
        /// For people.
        message: String,
        /// Host pid, when there is one.
        pid: Option<i32>,
    },
}

/// An invocation that ended.
#[derive(Debug, Clone, Serialize)]
pub struct Invocation {
    /// Id of the client's request.
    pub ray: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the caller was told, when it failed.
    #[serde(serialize_with = "code")]
    pub error: Option<Failure>,
    /// What the Worker's owner should know about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Wall time, microseconds.
    pub wall_us: u64,
    /// Bytes of the request's body, as far as they were read.
    pub request_bytes: u64,
    /// Bytes of the response's body, as far as they were sent.
    pub response_bytes: u64,
    /// Subrequests made.
    pub subrequests: u32,
    /// How many Workers were called before this one for the same client request.
    pub depth: u8,
    /// The Worker that dispatched to this one.
    #[serde(serialize_with = "optional_display")]
    pub via: Option<WorkerId>,
    /// A process had to be started for it.
    pub cold: bool,
}

impl Event {
    /// False for a request to a Worker that does not exist.
    pub(super) fn is_of_a_worker(&self) -> bool {
        !self.version.is_empty()
    }

    /// Writes the event as a log line. Tenants' text is logged as a field, never as a format.
    pub(super) fn log(&self) {
        let Self { worker, version, .. } = self;
        match &self.detail {
            Detail::Invocation(i) if matches!(i.outcome, Outcome::Ok | Outcome::Canceled) => {
                tracing::debug!(target: "cloister::invocation", %worker, %version, ray = %i.ray,
                    outcome = ?i.outcome, status = i.status, cpu_us = i.cpu_us, wall_us = i.wall_us,
                    request_bytes = i.request_bytes, response_bytes = i.response_bytes,
                    subrequests = i.subrequests, depth = i.depth, cold = i.cold);
            }
            Detail::Invocation(i) => {
                tracing::info!(target: "cloister::invocation", %worker, %version, ray = %i.ray,
                    outcome = ?i.outcome, code = i.error.map(Failure::code), reason = i.reason,
                    status = i.status, cpu_us = i.cpu_us, wall_us = i.wall_us,
                    request_bytes = i.request_bytes, response_bytes = i.response_bytes,
                    subrequests = i.subrequests, depth = i.depth, cold = i.cold);
            }
            Detail::Output { stream, line } => {
                tracing::debug!(target: "cloister::output", %worker, %version, stream, line = ?line);
            }
            Detail::Process { message, pid } => {
                tracing::info!(target: "cloister::process", %worker, %version, pid, message = ?message);
            }
        }
    }
}

fn milliseconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let elapsed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

fn display<S: Serializer>(worker: &WorkerId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(worker)
}

fn optional_display<S: Serializer>(worker: &Option<WorkerId>, serializer: S) -> Result<S::Ok, S::Error> {
    match worker {
        Some(worker) => serializer.collect_str(worker),
        None => serializer.serialize_none(),
    }
}

fn code<S: Serializer>(failure: &Option<Failure>, serializer: S) -> Result<S::Ok, S::Error> {
    failure.map(Failure::code).serialize(serializer)
}
