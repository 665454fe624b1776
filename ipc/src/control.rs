//! Messages on a Worker's control socket (`SOCK_SEQPACKET`), supervisor → Worker only.
//!
//! The Worker never sends on it: the supervisor shuts its receiving side, so that no descriptor
//! of a hostile process can arrive. The Worker finds the socket at descriptor
//! [`CONTROL_FD`], named by the environment variable [`CONTROL_ENV`].

use serde::{Deserialize, Serialize};

use crate::worker::BodyRef;

/// Descriptor number of the control socket in a Worker.
pub const CONTROL_FD: i32 = 3;

/// Environment variable that names the control socket's descriptor to the SDK.
pub const CONTROL_ENV: &str = "CLOISTER_CONTROL_FD";

/// Number of a message stream of a Worker process, from 0.
pub type ConnectionId = u32;

/// One record on the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum Control {
    /// First record, no descriptor.
    Start(Start),
    /// With one descriptor: a stream socket that carries [`frame`](crate::frame)s. Each of the
    /// supervisor's runtimes opens its own, so no message crosses threads.
    Connection {
        /// Its number, for [`Control::Body`].
        id: ConnectionId,
    },
    /// With one descriptor: the stream socket of a body or tunnel that the Worker asked for.
    Body {
        /// The connection it belongs to.
        connection: ConnectionId,
        /// Which body.
        body: BodyRef,
    },
}

/// What a Worker is told at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub struct Start {
    /// [`PROTOCOL`](crate::PROTOCOL) of the supervisor.
    pub protocol: u16,
    /// Namespace; empty for a Worker of the account itself.
    pub namespace: String,
    /// Name of the Worker.
    pub worker: String,
    /// Id of its version.
    pub version: String,
    /// Bindings by name.
    pub env: Vec<(String, EnvBinding)>,
}

/// A binding as the Worker sees it: data, or a name it may use in a fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub enum EnvBinding {
    /// `plain_text`.
    Text(String),
    /// `secret_text`.
    Secret(String),
    /// `json`, as text.
    Json(String),
    /// `dispatch_namespace`: usable as [`Target::Dispatch`](crate::worker::Target::Dispatch).
    DispatchNamespace {
        /// The namespace's name.
        namespace: String,
    },
    /// `service`: usable as [`Target::Service`](crate::worker::Target::Service).
    Service {
        /// The Worker's name.
        service: String,
    },
}
