//! Connections go home when the answer's last byte was read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::{IDLE, Idle, lock};
use crate::body::BodyError;
use crate::client::Sender;

/// Where idle connections of one process and shard wait.
#[derive(Clone, Default)]
pub(super) struct Home(Arc<Idle>);

impl Home {
    pub(super) fn give(&self, sender: Sender) {
        let mut idle = lock(&self.0);
        if idle.len() < IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }

    pub(super) fn take(&self) -> Option<Sender> {
        lock(&self.0).pop()
    }
}

/// A body whose connection is used again when it ends; dropped earlier, the connection closes.
pub(super) struct Returning {
    incoming: Incoming,
    connection: Option<(Sender, Home)>,
}

impl Returning {
    pub(super) fn new(incoming: Incoming, sender: Sender, home: Home) -> Self {
        Self { incoming, connection: Some((sender, home)) }
    }

    fn go_home(&mut self) {
        if let Some((sender, home)) = self.connection.take() {
            home.give(sender);
        }
    }
}

impl HttpBody for Returning {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None => self.go_home(),
            Some(Ok(_)) if self.incoming.is_end_stream() => self.go_home(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.connection = None,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
