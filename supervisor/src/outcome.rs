//! How an invocation ended, and what a client is told.

use http::StatusCode;

/// The outcome of an invocation, as recorded (DESIGN: the names of Workers' own outcomes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Answered.
    Ok,
    /// The Worker failed: its handler, its process, or its answer was not HTTP.
    Exception,
    /// Over its CPU limit.
    ExceededCpu,
    /// Over its memory limit.
    ExceededMemory,
    /// Over its wall time limit.
    ExceededWallTime,
    /// Over its subrequest limit, and failed for it.
    ExceededSubrequests,
    /// No such Worker.
    ScriptNotFound,
    /// The client went away.
    Canceled,
    /// Turned away, too much was waiting.
    LoadShed,
    /// Ended by the operator or by a deploy.
    Killed,
    /// The supervisor's own failure.
    InternalError,
}

/// A failure that a client is told of: stable code, status, and text. Never a tenant's own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Failure {
    /// 1101: the Worker failed.
    Exception,
    /// 1102: CPU or memory limit exceeded.
    ExceededResources,
    /// 1015: rate limit of a route or plan.
    RateLimited,
    /// 1019: Workers dispatch to each other in a loop.
    Loop,
    /// 1042: no such Worker, or no route for the request.
    ScriptNotFound,
    /// 1050: the Worker failed to start.
    StartFailed,
    /// 1051: wall time limit exceeded.
    ExceededWallTime,
    /// 1052: turned away, too much was waiting.
    LoadShed,
    /// 1053: what the Worker answered is not a valid response.
    BadResponse,
    /// 1054: the request body is over the limit.
    BodyTooLarge,
    /// 1000: the supervisor's own failure.
    Internal,
}

impl Failure {
    /// The stable code, in the body and in the `cloister-error` header.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Internal => 1000,
            Self::RateLimited => 1015,
            Self::Loop => 1019,
            Self::ScriptNotFound => 1042,
            Self::StartFailed => 1050,
            Self::ExceededWallTime => 1051,
            Self::LoadShed => 1052,
            Self::BadResponse => 1053,
            Self::BodyTooLarge => 1054,
            Self::Exception => 1101,
            Self::ExceededResources => 1102,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Exception | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ExceededResources | Self::LoadShed => StatusCode::SERVICE_UNAVAILABLE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::ScriptNotFound => StatusCode::NOT_FOUND,
            Self::StartFailed | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::ExceededWallTime => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// One line for people.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Exception => "the Worker failed while answering",
            Self::ExceededResources => "the Worker exceeded its CPU or memory limit",
            Self::RateLimited => "too many requests",
            Self::Loop => "Workers dispatch to each other in a loop",
            Self::ScriptNotFound => "there is no Worker for this request",
            Self::StartFailed => "the Worker could not be started",
            Self::ExceededWallTime => "the Worker did not answer in time",
            Self::LoadShed => "the Worker is overloaded, try again later",
            Self::BadResponse => "the Worker's answer is not a valid HTTP response",
            Self::BodyTooLarge => "the request body is larger than allowed",
            Self::Internal => "the platform failed",
        }
    }
}
