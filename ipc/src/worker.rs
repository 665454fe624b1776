//! Messages between the supervisor and a Worker of the `ipc` contract, one to a frame.
//!
//! Ids: the supervisor numbers requests, the Worker numbers its fetches; both strictly rise from 1
//! on each connection. An id that was never given out, or is over, ends the Worker.
//!
//! Bodies: up to [`INLINE_BODY_BYTES`](crate::limits::INLINE_BODY_BYTES) ride behind the message.
//! A longer or open-ended one is a Unix stream socket, always made by the supervisor and sent on
//! the control socket (see [`control`](crate::control)) when the Worker asks for it: by
//! [`FromWorker::Open`] to read a [`HostBody::Held`] one, by [`WorkerBody::Stream`] to write one.
//! A body that nobody opened can be passed on whole by [`WorkerBody::Forward`], without its bytes
//! ever entering the Worker. The writer of a streamed body shuts the socket's write side down and
//! says [`BodyEnd`]; a reader that sees the end of the socket without a matching
//! [`BodyEnd::Complete`] knows that the body was cut short. A tunnel is a body in both directions
//! and has no [`BodyEnd`]: it is over when its socket is closed.
//!
//! When a request is over. Exactly one of these ends it, seen from the Worker:
//! * [`FromWorker::Exception`];
//! * a [`FromWorker::Response`] or [`FromWorker::Handoff`] with `wait_until: false`, once the
//!   [`BodyEnd`] of a streamed body was said;
//! * [`FromWorker::Done`], after an answer with `wait_until: true` (then also the streamed body has
//!   ended, or the tunnel is closed), or alone after a [`ToWorker::Cancel`] that came before the
//!   answer.
//!
//! Each `Cancel` makes the Worker drop what the request has come to: the handler; if it has
//! answered, the streamed body, which then ends as [`BodyEnd::Aborted`]; if that is over, the
//! `wait_until` work.
//!
//! With a request its fetches and their bodies are over. Both sides write at the same time, so
//! messages cross: [`FromWorker::Open`], [`FromWorker::Discard`], [`FromWorker::BodyEnd`],
//! [`FromWorker::CancelFetch`], [`FromWorker::Fetch`] (which then fails), and an answer or `Done` to a cancelled request, about an id that
//! was given out but is over are ignored. So is everything a Worker gets about an id that is over.
//! About an id that was never given out they end the Worker.

use serde::{Deserialize, Serialize};

/// Number of a request on its connection, given by the supervisor.
pub type RequestId = u64;

/// Number of a fetch on its connection, given by the Worker.
pub type FetchId = u64;

/// Head of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct RequestHead {
    /// Method token, as on the wire.
    pub method: String,
    /// Absolute URI (`http://host/path?query`): what the client asked, or what a fetch asks for.
    pub uri: String,
    /// Header block, see [`head`](crate::head).
    #[serde(with = "serde_bytes")]
    pub headers: Vec<u8>,
}

/// Head of a response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct ResponseHead {
    /// Status code, 100 to 999; 101 only with a tunnel.
    pub status: u16,
    /// Header block, see [`head`](crate::head).
    #[serde(with = "serde_bytes")]
    pub headers: Vec<u8>,
}

/// A body on its way to the Worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum HostBody {
    /// There is none.
    Empty,
    /// The whole body rides behind this message.
    Inline,
    /// The supervisor holds it until the Worker opens, forwards or drops it.
    Held {
        /// Its length in bytes, when known.
        length: Option<u64>,
    },
    /// The peer agreed to switch protocols (101): what is held is a byte stream in both directions.
    Tunnel,
}

/// A body on its way from the Worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum WorkerBody {
    /// There is none.
    Empty,
    /// The whole body rides behind this message.
    Inline,
    /// The Worker wants a socket to write it to.
    Stream {
        /// Its length in bytes, when known.
        length: Option<u64>,
    },
    /// Pass on a held body, unread. Must name a body that is held and was not opened.
    Forward(BodyRef),
    /// Status 101: the Worker wants a socket for a byte stream in both directions.
    Tunnel,
}

/// Which body of a connection is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum BodyRef {
    /// Body of a request to the Worker.
    Request(RequestId),
    /// Body of the Worker's response.
    Response(RequestId),
    /// Body of the Worker's own fetch.
    FetchRequest(FetchId),
    /// Body of the response to a fetch.
    FetchResponse(FetchId),
    /// Byte stream after the Worker answered a request with 101.
    Tunnel(RequestId),
    /// Byte stream after a fetch was answered with 101.
    FetchTunnel(FetchId),
}

/// How a streamed body ended, said by its writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum BodyEnd {
    /// All of it was written.
    Complete {
        /// Bytes written; must equal what the reader saw.
        bytes: u64,
        /// Trailer fields as a header block; empty when there are none.
        #[serde(with = "serde_bytes")]
        trailers: Vec<u8>,
    },
    /// Cut short: the reader must not take what it saw for the whole.
    Aborted,
}

/// What a dispatch Worker asks of the user Worker's invocation; absent fields don't limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct DispatchOptions {
    /// CPU time, milliseconds.
    pub cpu_ms: Option<u32>,
    /// Outgoing requests and dispatches the invocation may make.
    pub subrequests: Option<u32>,
    /// Wall time, milliseconds.
    pub wall_ms: Option<u32>,
    /// JSON text handed to the user Worker as its arguments; empty for none.
    pub args: String,
    /// Parameters for the outbound Worker, name and JSON text.
    pub outbound: Vec<(String, String)>,
}

/// Where a fetch goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum Target {
    /// Out, through the egress filter.
    Egress,
    /// To a user Worker of a dispatch namespace the Worker is bound to.
    Dispatch {
        /// Name of the Worker's `dispatch_namespace` binding.
        binding: String,
        /// Name of the user Worker.
        worker: String,
        /// Limits and parameters of the invocation.
        options: DispatchOptions,
    },
    /// To another Worker of the account, by a `service` binding.
    Service {
        /// Name of the binding.
        binding: String,
    },
}

/// What the supervisor tells about a request besides HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Context {
    /// The supervisor's id of the whole request, for logs.
    pub ray: String,
    /// Client's IP address as text; empty when the request did not come from outside.
    pub client: String,
    /// JSON text of the dispatch call's arguments; empty for none.
    pub args: String,
    /// Set when the Worker is called as an outbound Worker.
    pub outbound: Option<OutboundContext>,
}

/// For whom an outbound Worker is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct OutboundContext {
    /// Namespace of the user Worker that fetches.
    pub namespace: String,
    /// Name of the user Worker that fetches.
    pub worker: String,
    /// Parameters of the dispatch call, name and JSON text.
    pub params: Vec<(String, String)>,
}

/// Why a fetch got no response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum FetchError {
    /// No such user Worker.
    NotFound,
    /// The egress policy refused it; the text names the rule.
    Denied(String),
    /// The subrequest limit is used up.
    Subrequests,
    /// The other Worker failed; the stable error code of the outcome.
    Worker {
        /// Code as in the `cloister-error` header, 1101 for an exception.
        code: u16,
        /// For people.
        message: String,
    },
    /// The remote end can't be reached or broke off; the text says how.
    Network(String),
    /// The request makes no sense (unknown binding, not an absolute URI, …).
    Invalid(String),
}

/// Supervisor → Worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum ToWorker {
    /// A request to answer.
    Request {
        /// Its number.
        id: RequestId,
        /// Method, URI, headers.
        head: RequestHead,
        /// What is known besides.
        context: Context,
        /// Its body.
        body: HostBody,
    },
    /// Nobody waits for this answer (any more of its body) any more. The Worker ends the request
    /// as the module's text says.
    Cancel {
        /// Its number.
        id: RequestId,
    },
    /// The response to a fetch.
    Response {
        /// The fetch.
        fetch: FetchId,
        /// Status and headers.
        head: ResponseHead,
        /// Its body.
        body: HostBody,
    },
    /// A fetch that got no response.
    FetchFailed {
        /// The fetch.
        fetch: FetchId,
        /// Why.
        error: FetchError,
    },
    /// The supervisor ended a body that it was writing.
    BodyEnd {
        /// Which.
        body: BodyRef,
        /// How.
        end: BodyEnd,
    },
    /// No more requests will come; finish what is open and close. A Worker whose last connection
    /// closes so ends its process.
    Shutdown,
}

/// Worker → supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum FromWorker {
    /// First message on every connection.
    Hello {
        /// [`PROTOCOL`](crate::PROTOCOL) of the Worker's SDK.
        protocol: u16,
    },
    /// The answer to a request.
    Response {
        /// The request.
        id: RequestId,
        /// Status and headers.
        head: ResponseHead,
        /// Its body.
        body: WorkerBody,
        /// Work handed to `wait_until` goes on; [`FromWorker::Done`] will follow. Its time limit runs
        /// from the end of a streamed body or tunnel.
        wait_until: bool,
    },
    /// Tail dispatch: let this target answer the request directly. `body` forwards the request's
    /// own body or is empty or inline.
    Handoff {
        /// The request.
        id: RequestId,
        /// Who answers; [`Target::Dispatch`] or [`Target::Service`].
        target: Target,
        /// The request as the target shall see it; `None` for the very one that the Worker was given.
        head: Option<RequestHead>,
        /// Its body.
        body: WorkerBody,
        /// As in [`FromWorker::Response`].
        wait_until: bool,
    },
    /// The handler failed (a panic or an error); the text is for the Worker's owner.
    Exception {
        /// The request.
        id: RequestId,
        /// At most 4 KiB.
        message: String,
    },
    /// An outgoing request.
    Fetch {
        /// Its number.
        fetch: FetchId,
        /// The request on whose behalf; must be open or in `wait_until`.
        request: RequestId,
        /// Where to.
        target: Target,
        /// The request to make.
        head: RequestHead,
        /// Its body.
        body: WorkerBody,
    },
    /// Wants the socket of a held body or tunnel.
    Open {
        /// Which.
        body: BodyRef,
    },
    /// Will not read (more of) a held or opened body.
    Discard {
        /// Which.
        body: BodyRef,
    },
    /// The Worker ended a body that it was writing.
    BodyEnd {
        /// Which.
        body: BodyRef,
        /// How.
        end: BodyEnd,
    },
    /// Nobody waits for this fetch any more.
    CancelFetch {
        /// Which.
        fetch: FetchId,
    },
    /// All `wait_until` work of a request is over.
    Done {
        /// The request.
        id: RequestId,
    },
}
