//! What is deployed, as the data plane sees it: an immutable snapshot behind an atomic pointer.
//!
//! The store is the truth; after each change the control plane publishes a new snapshot. A lookup
//! takes no lock and costs the same with one Worker or a hundred thousand.

mod deployed;
mod name;
mod snapshot;

pub use deployed::{
    Allow, Binding, Contract, Deployed, Digest, Files, HttpSocket, Linkage, OutboundBinding, WorkerId,
};
pub use name::{NAME_BYTES, Name, NameError};
pub use snapshot::{Registry, Snapshot};
