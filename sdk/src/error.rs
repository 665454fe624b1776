//! Typed errors of the SDK.

use std::fmt;

use cloister_ipc::codec::CodecError;
use cloister_ipc::frame::FrameError;
use cloister_ipc::worker;

/// Any error, as services and bodies give it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the Worker process as a whole can't start or go on.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process was not started by Cloister.
    #[error(
        "environment variable {variable} does not name a control socket ({found}): \
         this program is a Cloister Worker, start it with `cloister dev` or `cloister deploy`"
    )]
    NoSupervisor {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        found: String,
    },
    /// The control socket or the runtime failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// The supervisor speaks another protocol: build the Worker with the SDK of its release.
    #[error("the supervisor speaks protocol {theirs}, this SDK {ours}: build with the SDK of its release")]
    Protocol {
        /// Version of this SDK.
        ours: u16,
        /// Version of the supervisor.
        theirs: u16,
    },
    /// A control message makes no sense.
    #[error("control socket: {0}")]
    Control(#[from] CodecError),
    /// A control message came out of turn.
    #[error("control socket: {0}")]
    Order(&'static str),
    /// A message stream makes no sense.
    #[error("message stream: {0}")]
    Frame(#[from] FrameError),
}

/// The same as its display: this is what a `main` that returns it prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Why a fetch, a dispatch or a service call got no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// There is no such user Worker.
    #[error("there is no such Worker")]
    NotFound,
    /// The egress policy refused it; the text names the rule.
    #[error("refused by the egress policy: {0}")]
    Denied(String),
    /// The invocation's subrequest limit is used up.
    #[error("the subrequest limit is used up")]
    Subrequests,
    /// The other Worker failed.
    #[error("the Worker failed ({code}): {message}")]
    Worker {
        /// Stable code, 1101 for an exception, 1102 for a CPU or memory limit.
        code: u16,
        /// For people.
        message: String,
    },
    /// The remote end can't be reached or broke off.
    #[error("network: {0}")]
    Network(String),
    /// The request makes no sense; the text says what to change.
    #[error("not a request that can be made: {0}")]
    Invalid(String),
    /// The request's own body failed.
    #[error("the request's body failed: {0}")]
    Body(BoxError),
    /// The request on whose behalf this was asked is over, or the supervisor went away.
    #[error("the request this fetch belongs to is over")]
    Over,
    /// [`fetch`](crate::fetch) was called where no request is being handled, as in a spawned
    /// task: use [`Context::fetch`](crate::Context::fetch) there.
    #[error("fetch was called outside of a request's handler: use Context::fetch")]
    NoRequest,
}

impl FetchError {
    /// True for [`FetchError::NotFound`].
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound)
    }
}

impl From<worker::FetchError> for FetchError {
    fn from(error: worker::FetchError) -> Self {
        match error {
            worker::FetchError::NotFound => Self::NotFound,
            worker::FetchError::Denied(rule) => Self::Denied(rule),
            worker::FetchError::Subrequests => Self::Subrequests,
            worker::FetchError::Worker { code, message } => Self::Worker { code, message },
            worker::FetchError::Network(text) => Self::Network(text),
            worker::FetchError::Invalid(text) => Self::Invalid(text),
        }
    }
}

/// Why a binding can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// There is none of this name.
    #[error("there is no binding {0:?}: add it to the Worker's bindings")]
    Missing(String),
    /// It is of another kind.
    #[error("binding {name:?} is a {is} binding, not a {wanted} one")]
    Kind {
        /// Its name.
        name: String,
        /// Its kind, as in the manifest.
        is: &'static str,
        /// The kind asked for.
        wanted: &'static str,
    },
    /// Its JSON is of another shape.
    #[error("binding {name:?}: {source}")]
    Json {
        /// Its name.
        name: String,
        /// What does not fit.
        source: serde_json::Error,
    },
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// Its writer ended it before its end.
    #[error("the body was cut short by its writer")]
    Aborted,
    /// Bytes were lost on the way.
    #[error("the body has {seen} bytes, its writer wrote {written}")]
    Length {
        /// Bytes that came.
        seen: u64,
        /// Bytes its writer counted.
        written: u64,
    },
    /// Its socket failed.
    #[error("the body's socket failed: {0}")]
    Io(#[from] std::io::Error),
    /// The request it belongs to is over, or the supervisor went away.
    #[error("the request of this body is over")]
    Over,
    /// A body of the Worker's own making failed.
    #[error(transparent)]
    Other(BoxError),
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The request does not ask for an upgrade, or its upgrade was taken before.
    #[error("the message has no upgrade to take")]
    NotAsked,
    /// The request was answered otherwise than with 101, or is over.
    #[error("the request was not answered with status 101")]
    NotSwitched,
    /// The tunnel's socket failed.
    #[error("the tunnel's socket failed: {0}")]
    Io(#[from] std::io::Error),
}
