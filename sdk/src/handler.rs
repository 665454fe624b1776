//! What answers requests: a closure, or a tower service.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};

use futures_util::future::LocalBoxFuture;
use http::{Request, Response};
use http_body::Body as HttpBody;
use tower_service::Service;

use crate::answer::Answer;
use crate::body::Body;
use crate::context::Context;
use crate::env::Env;
use crate::error::BoxError;
use crate::invocation::Invocation;

/// The running answer to a request.
pub(crate) enum Call<F: Future> {
    /// It may be polled at once.
    Now(F),
    /// The service was not ready.
    Later(LocalBoxFuture<'static, F::Output>),
    /// The service failed before it took the request.
    Failed(BoxError),
}

/// What answers requests. Cloned for each connection.
pub(crate) trait Handler: Clone {
    type Answer: Answer;
    type Future: Future<Output = Self::Answer> + 'static;

    fn call(
        &mut self,
        request: Request<Body>,
        invocation: &Arc<Invocation>,
        cx: &mut task::Context<'_>,
    ) -> Call<Self::Future>;
}

/// A closure.
pub(crate) struct FnHandler<F>(Rc<F>);

impl<F> FnHandler<F> {
    pub(crate) fn new(function: F) -> Self {
        Self(Rc::new(function))
    }
}

impl<F> Clone for FnHandler<F> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<F, Fut> Handler for FnHandler<F>
where
    F: Fn(Request<Body>, Env, Context) -> Fut,
    Fut: Future<Output: Answer> + 'static,
{
    type Answer = Fut::Output;
    type Future = Fut;

    fn call(
        &mut self,
        request: Request<Body>,
        invocation: &Arc<Invocation>,
        _cx: &mut task::Context<'_>,
    ) -> Call<Fut> {
        Call::Now((self.0)(request, Env::new(invocation.clone()), Context::new(invocation.clone())))
    }
}

/// A tower service. It finds [`Env`] and [`Context`] in the request's extensions.
#[derive(Clone)]
pub(crate) struct ServiceHandler<S>(pub(crate) S);

impl<S, B> Handler for ServiceHandler<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>> + Clone + 'static,
    S::Future: 'static,
    B: HttpBody<Error: Into<BoxError>> + 'static,
{
    type Answer = Result<Response<B>, S::Error>;
    type Future = S::Future;

    fn call(
        &mut self,
        mut request: Request<Body>,
        invocation: &Arc<Invocation>,
        cx: &mut task::Context<'_>,
    ) -> Call<S::Future> {
        let extensions = request.extensions_mut();
        extensions.insert(Env::new(invocation.clone()));
        extensions.insert(Context::new(invocation.clone()));
        match self.0.poll_ready(cx) {
            Poll::Ready(Ok(())) => Call::Now(self.0.call(request)),
            Poll::Ready(Err(error)) => Call::Failed(error.into()),
            Poll::Pending => {
                let mut service = self.0.clone();
                Call::Later(Box::pin(async move {
                    poll_fn(|cx| service.poll_ready(cx)).await?;
                    service.call(request).await
                }))
            }
        }
    }
}
