//! The egress filter: every byte a Worker sends out of the machine passes here.

mod caller;
mod error;

use std::sync::Arc;

use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

pub use caller::{
    BindingTarget, Bindings, Budget, Caller, Exhausted, OutboundCall, OutboundInvoker, Secrets,
};
pub use error::EgressError;

use crate::body::Body;

/// The filter; one for the whole supervisor, shared by all its runtimes. Until it has a policy it
/// lets nothing pass.
#[derive(Debug, Default)]
pub struct Egress {}

impl Egress {
    /// Sends `req` (absolute `http` or `https` URI) for `caller`, if its policy lets it.
    ///
    /// Redirects are not followed: the Worker gets them, and what it asks next is judged anew.
    /// A 101 response carries hyper's `OnUpgrade` extension (`hyper::upgrade::on`).
    ///
    /// # Errors
    /// See [`EgressError`].
    pub async fn fetch(&self, caller: &Caller, _req: Request<Body>) -> Result<Response<Body>, EgressError> {
        caller.subrequests.take()?;
        Err(EgressError::Denied { rule: "default".into(), reason: "no policy is loaded".into() })
    }

    /// Serves one connection accepted on a Worker's proxy port until it ends. `caller` is asked
    /// once for each request.
    pub async fn serve_proxy<I, F>(self: Arc<Self>, io: I, caller: F)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn() -> Caller + Send + Sync + 'static,
    {
        let (_, _) = (io, caller);
    }
}
