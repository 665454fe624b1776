//! Drives one connection.
//!
//! One read takes every message that has come. A fresh handler is polled once on the spot, and
//! only becomes a task when it is pending. Answers gather in the link's output and are written
//! once, when there is nothing more to do.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cloister_ipc::borrowed::ToWorker;
use cloister_ipc::control::Start;
use cloister_ipc::frame::{self, FrameError, FrameReader};
use cloister_ipc::limits::MESSAGE_BYTES;
use cloister_ipc::worker::{FromWorker, RequestId};
use cloister_ipc::{PROTOCOL, codec};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Request;

use crate::answer::{answer, chain};
use crate::body::Body;
use crate::error::Error;
use crate::handler::{Call, Handler};
use crate::incoming;
use crate::invocation::{Facts, Invocation};
use crate::link::{Fetched, Link, OUTPUT_BYTES};
use crate::stream::Stream;
use crate::task::{Ended, Panicked, Place, Stage, Task, guarded};

/// Output buffers larger than this are given back once they are written.
const KEEP_BYTES: usize = OUTPUT_BYTES / 4;

/// One connection.
pub(crate) struct Driver<H: Handler> {
    pub(crate) link: Arc<Link>,
    start: Arc<Start>,
    handler: H,
    stream: Stream,
    reader: FrameReader,
    tasks: FuturesUnordered<Task<H::Future>>,
    /// An empty box for the next handler.
    place: Option<Place<H::Future>>,
    /// Taken from the link's output, written up to `written`.
    output: Vec<u8>,
    written: usize,
    /// No more requests will come.
    draining: bool,
}

/// Says hello at once and not with the first answers: a handler that ends the process is then not
/// taken for a Worker that did not start.
fn greet(link: &Link, stream: &Stream) {
    let hello = FromWorker::Hello { protocol: PROTOCOL };
    let mut record = Vec::new();
    let encoded = frame::append(&hello, &[], &mut record).is_ok();
    if !encoded || !stream.say(&record) {
        link.tell(&hello);
    }
}

impl<H: Handler> Driver<H> {
    pub(crate) fn new(link: Arc<Link>, start: Arc<Start>, handler: H, stream: Stream) -> Self {
        greet(&link, &stream);
        Self {
            link,
            start,
            handler,
            stream,
            reader: FrameReader::new(),
            tasks: FuturesUnordered::new(),
            place: None,
            output: Vec::new(),
            written: 0,
            draining: false,
        }
    }

    /// Runs until nothing can be done; ready when the connection is over. Says then whether the
    /// supervisor had asked for the end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        self.link.enter(cx.waker());
        loop {
            self.run_tasks(cx);
            let has_room = self.link.has_room();
            let read = if has_room { self.poll_read(cx)? } else { Poll::Pending };
            match read {
                Poll::Ready(Read::Messages) => continue,
                Poll::Ready(Read::End) => return Poll::Ready(Ok(self.draining)),
                Poll::Pending => {}
            }
            let flushed = match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => true,
                Poll::Ready(Err(error)) if is_gone(&error) => return Poll::Ready(Ok(self.draining)),
                Poll::Ready(Err(source)) => {
                    return Poll::Ready(Err(Error::Io { what: "write the message stream", source }));
                }
                Poll::Pending => false,
            };
            // What was not read for want of room is not told of again, nor what came while it was not watched.
            if (flushed && !has_room) || self.stream.has_turned() || !self.link.leave() {
                continue;
            }
            if flushed && self.draining && self.tasks.is_empty() && self.link.open_requests() == 0 {
                return Poll::Ready(Ok(true));
            }
            return Poll::Pending;
        }
    }

    fn run_tasks(&mut self, cx: &mut Context<'_>) {
        loop {
            self.take_spawned();
            match self.tasks.poll_next_unpin(cx) {
                Poll::Ready(Some((invocation, ended))) => match ended {
                    Ended::Answered(result) => self.answer(&invocation, result),
                    Ended::Failed(panicked) => self.failed(&invocation, &panicked),
                    Ended::Over => {}
                },
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn take_spawned(&mut self) {
        for spawned in self.link.take_spawned() {
            self.tasks.push(Task::new(
                spawned.invocation,
                Stage::Work { future: spawned.work, _hold: spawned.hold },
            ));
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<Read>, Error> {
        match self.stream.poll_read(cx, self.reader.space()) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => return Ok(Poll::Ready(Read::End)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) if is_gone(&error) => return Ok(Poll::Ready(Read::End)),
            Poll::Ready(Err(source)) => return Err(Error::Io { what: "read the message stream", source }),
        }
        while let Some((message, inline)) = self.reader.next_encoded()? {
            self.take(&message, inline, cx)?;
        }
        Ok(Poll::Ready(Read::Messages))
    }

    fn take(&mut self, message: &[u8], inline: Bytes, cx: &mut Context<'_>) -> Result<(), Error> {
        // One copy of its own, which everything that is kept of it shares: a request that lasts
        // does not keep what was read with it.
        let message = Bytes::copy_from_slice(message);
        match codec::decode_borrowed(&message, MESSAGE_BYTES).map_err(FrameError::from)? {
            ToWorker::Request { id, head, context, body } => {
                let facts = Facts::new(&message, &head, context);
                let invocation = Invocation::new(id, self.link.clone(), self.start.clone(), facts);
                match incoming::request(&invocation, &message, &head, body, inline) {
                    Ok(request) => self.request(invocation, request, cx),
                    Err(error) => invocation.fail(&format!("the request's head: {error}")),
                }
            }
            ToWorker::Cancel { id } => self.cancel(id),
            ToWorker::Response { fetch, head, body } => {
                let headers = message.slice_ref(head.headers);
                self.link.fetched(fetch, Ok(Fetched { status: head.status, headers, body, inline }));
            }
            ToWorker::FetchFailed { fetch, error } => self.link.fetched(fetch, Err(error.into())),
            ToWorker::BodyEnd { body, end } => self.link.ended(body, end),
            ToWorker::Shutdown => self.draining = true,
        }
        Ok(())
    }

    fn request(&mut self, invocation: Arc<Invocation>, request: Request<Body>, cx: &mut Context<'_>) {
        let handler = &mut self.handler;
        let mut place = self.place.take().unwrap_or_else(|| Box::pin(None));
        // The handler is made and polled once; what is left of it stays in its place.
        let polled = guarded(&invocation, || match handler.call(request, &invocation, cx) {
            Call::Now(future) => {
                place.set(Some(future));
                let polled = place.as_mut().as_pin_mut().map(|future| future.poll(cx));
                if let Some(Poll::Ready(result)) = polled {
                    place.set(None);
                    return Polled::<H::Future>::Answered(result);
                }
                Polled::Pending
            }
            Call::Later(future) => Polled::Waiting(future),
            Call::Failed(error) => Polled::Failed(error),
        });
        let stage = match polled {
            Ok(Polled::Pending) => Stage::Handler(place),
            Ok(Polled::Waiting(future)) => {
                self.place = Some(place);
                Stage::Waiting(future)
            }
            Ok(Polled::Answered(result)) => {
                self.place = Some(place);
                return self.answer(&invocation, result);
            }
            Ok(Polled::Failed(error)) => {
                self.place = Some(place);
                return invocation.fail(&chain(&*error));
            }
            Err(panicked) => {
                // Its future may have been left in its place.
                let _dropped = guarded(&invocation, || drop(place));
                return self.failed(&invocation, &panicked);
            }
        };
        self.tasks.push(Task::new(invocation, stage));
    }

    fn answer(&mut self, invocation: &Arc<Invocation>, result: H::Answer) {
        match guarded(invocation, || answer(invocation, result)) {
            Ok(None) => {}
            Ok(Some((body, hold))) => {
                self.tasks.push(Task::new(invocation.clone(), Stage::Body { future: body, _hold: hold }));
            }
            Err(panicked) => self.failed(invocation, &panicked),
        }
    }

    /// The handler panicked: with the request its `wait_until` work ends.
    fn failed(&mut self, invocation: &Arc<Invocation>, panicked: &Panicked) {
        invocation.fail(&panicked.0);
        self.take_spawned();
        for task in self.tasks.iter_mut().filter(|task| task.invocation.id == invocation.id) {
            task.cancel();
        }
    }

    /// Drops what a request has come to: its handler, else its streamed body, else its
    /// `wait_until` work.
    fn cancel(&mut self, id: RequestId) {
        self.take_spawned();
        let mut handler = None;
        let mut body = false;
        for task in self.tasks.iter_mut().filter(|task| task.invocation.id == id) {
            match task.stage {
                Stage::Handler(_) | Stage::Waiting(_) => {
                    task.cancel();
                    handler = Some(task.invocation.clone());
                }
                Stage::Body { .. } => {
                    task.cancel();
                    body = true;
                }
                Stage::Work { .. } | Stage::Gone => {}
            }
        }
        if let Some(invocation) = handler {
            invocation.cancelled();
        } else if !body {
            for task in self.tasks.iter_mut().filter(|task| task.invocation.id == id) {
                task.cancel();
            }
        }
    }

    /// Writes the output; ready when there is none left.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let rest = self.output.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.written = 0;
                if self.output.capacity() > KEEP_BYTES {
                    self.output = Vec::new();
                }
                if !self.link.take_output(&mut self.output) {
                    return Poll::Ready(self.stream.written());
                }
                continue;
            }
            let polled = self.stream.poll_write(cx, rest);
            if polled.is_pending() {
                self.link.set_unwritten(rest.len());
            }
            match ready!(polled)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
    }
}

impl<H: Handler> Drop for Driver<H> {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// What a read brought.
enum Read {
    Messages,
    End,
}

/// A fresh handler after its first poll.
enum Polled<F: Future> {
    Answered(F::Output),
    Pending,
    Waiting(futures_util::future::LocalBoxFuture<'static, F::Output>),
    Failed(crate::error::BoxError),
}

/// The supervisor went away: not an error of ours.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}
