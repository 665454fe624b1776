//! The one body type: of requests as they come, of responses to fetches, and of answers.

mod held;
mod outgoing;
mod pump;

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::error::{BodyError, BoxError};

pub(crate) use held::{Held, stream};
pub(crate) use outgoing::{Outgoing, outgoing};
pub(crate) use pump::{Source, pump};

/// A request's or response's body.
///
/// Short bodies are here already. A long one stays with the platform until it is read: an unread
/// body that is passed on (a request's into a fetch, a fetch's response as the answer) never
/// enters this process. To read one, use [`http_body_util::BodyExt`], or [`Body::bytes`].
#[derive(Debug, Default)]
pub struct Body(Kind);

#[derive(Debug, Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Held(Box<Held>),
    Boxed(UnsyncBoxBody<Bytes, BodyError>),
}

impl Body {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body that is all here.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    /// Any other body, streamed as it comes.
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self(Kind::Boxed(body.map_err(|error| BodyError::Other(error.into())).boxed_unsync()))
    }

    /// Reads the whole body, at most `limit` bytes; a longer one is [`BodyError::Other`].
    pub async fn bytes(self, limit: usize) -> Result<Bytes, BodyError> {
        match self.0 {
            Kind::Empty => Ok(Bytes::new()),
            Kind::Full(bytes) if bytes.len() <= limit => Ok(bytes),
            kind => match http_body_util::Limited::new(Self(kind), limit).collect().await {
                Ok(whole) => Ok(whole.to_bytes()),
                Err(error) => Err(match error.downcast::<BodyError>() {
                    Ok(error) => *error,
                    Err(error) => BodyError::Other(error),
                }),
            },
        }
    }

    pub(crate) fn held(held: Held) -> Self {
        Self(Kind::Held(Box::new(held)))
    }

    /// The held body in it; the body is empty afterwards.
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        match std::mem::take(&mut self.0) {
            Kind::Held(held) => Some(*held),
            other => {
                self.0 = other;
                None
            }
        }
    }

    /// The whole body when it is all here; the body is empty afterwards.
    fn take_full(&mut self) -> Option<Bytes> {
        match std::mem::take(&mut self.0) {
            Kind::Empty => Some(Bytes::new()),
            Kind::Full(bytes) => Some(bytes),
            other => {
                self.0 = other;
                None
            }
        }
    }
}

impl From<()> for Body {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self::full(bytes)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Held(held) => held.poll_frame(cx),
            Kind::Boxed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Held(held) => held.is_done(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Held(held) => held.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}
