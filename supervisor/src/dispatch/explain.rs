//! Why a call failed: for the client a code, for the owner a reason.

use std::time::Duration;

use super::Invocation;
use super::invocation::Verdict;
use crate::outcome::{Failure, Outcome};
use crate::pool::Fate;
use crate::worker::CallError;

/// How long the end of a process is waited for, to tell why it ended.
const EXIT: Duration = Duration::from_secs(2);

/// How long a broken connection is given to turn out to be the end of its process.
const SUSPICION: Duration = Duration::from_millis(100);

/// The verdict on an invocation whose call failed.
pub(super) async fn explain(invocation: &Invocation, error: CallError) -> Verdict {
    let verdict = |outcome, failure, reason: String| Verdict { outcome, failure, reason };
    if let Some(verdict) = invocation.verdict() {
        return verdict.clone();
    }
    match error {
        CallError::Exception(text) if invocation.is_exhausted() => {
            let reason = format!("the subrequest limit was used up: {text}");
            verdict(Outcome::ExceededSubrequests, Failure::Exception, reason)
        }
        // Unhandled, the failure of the Worker it called is the client's to hear of.
        CallError::Exception(text) => {
            let failure = invocation.callee_failure().unwrap_or(Failure::Exception);
            verdict(Outcome::Exception, failure, text)
        }
        CallError::BadResponse(text) => {
            let doomed = invocation.instance.fate().is_some();
            if !doomed && invocation.instance.ended(SUSPICION).await.is_some() {
                return gone(invocation).await;
            }
            match invocation.verdict() {
                Some(verdict) => verdict.clone(),
                None => verdict(Outcome::Exception, Failure::BadResponse, text),
            }
        }
        CallError::Gone => gone(invocation).await,
        CallError::Unsent(_) => {
            let text = "no process took the request".to_owned();
            verdict(Outcome::Exception, Failure::StartFailed, text)
        }
        CallError::Unsendable(text) => verdict(Outcome::Exception, Failure::BodyTooLarge, text),
        CallError::Internal(error) => verdict(Outcome::InternalError, Failure::Internal, error.to_string()),
    }
}

/// The process went away with the request.
async fn gone(invocation: &Invocation) -> Verdict {
    let instance = &invocation.instance;
    let ended = instance.ended(EXIT).await;
    if let Some(verdict) = invocation.verdict() {
        return verdict.clone();
    }
    let oom = ended.is_some_and(|ended| ended.oom_killed);
    let how = ended.map_or_else(|| "ended".to_owned(), |ended| format!("ended: {}", ended.how));
    let (outcome, failure, reason) = match instance.fate() {
        Some(Fate::Limit(what)) => {
            let reason = format!("another invocation of the same process exceeded its {what}");
            (Outcome::Exception, Failure::Exception, reason)
        }
        Some(Fate::Violation(text)) => {
            (Outcome::Exception, Failure::Exception, format!("the process broke the protocol: it {text}"))
        }
        Some(Fate::NotReady(text)) => (Outcome::Exception, Failure::StartFailed, text.clone()),
        Some(fate @ (Fate::Retired | Fate::Idle | Fate::Evicted | Fate::Killed)) => {
            (Outcome::Killed, Failure::Exception, format!("the process was ended: {fate:?}"))
        }
        Some(Fate::Closed) | None if oom => {
            (Outcome::ExceededMemory, Failure::ExceededResources, "over the memory limit".to_owned())
        }
        Some(Fate::Closed) | None if !instance.has_served() && !instance.has_greeted() => {
            (Outcome::Exception, Failure::StartFailed, format!("{how}, before it was ready"))
        }
        Some(Fate::Closed) | None => (Outcome::Exception, Failure::Exception, how),
    };
    Verdict { outcome, failure, reason }
}
