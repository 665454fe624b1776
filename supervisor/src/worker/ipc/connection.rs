//! One runtime's message stream to one Worker process.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use cloister_ipc::control::{ConnectionId, Control as Record};
use cloister_ipc::frame::FrameReader;
use cloister_ipc::worker::{FromWorker, RequestId, ToWorker};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::control::{Control, pair};
use super::state::{State, Trash, Violation};
use super::stream::Stream;
use super::{HIGH_WATER, STALL_SECONDS};
use crate::worker::CallError;

/// How long the last answers of a Worker that reads no more are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Messages of one Worker that are taken before others of the thread have their turn.
const IN_A_ROW: u32 = 64;

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The socket closed: the process is gone, or going.
    Closed {
        /// The Worker had said hello.
        greeted: bool,
    },
    /// The Worker broke the protocol: its process must be killed.
    Violation(String),
}

/// See the module.
pub struct Connection {
    pub(super) id: ConnectionId,
    pub(super) control: Control,
    stream: Stream,
    state: Mutex<State>,
    unblock: Notify,
    drained: Notify,
    greeted: Notify,
    tasks: OnceLock<[AbortHandle; 2]>,
    on_end: Box<dyn Fn(End) + Send + Sync>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Connection {
    /// Opens the stream number `id` through `control`, the process's control socket.
    /// Must be called within the runtime that will use it. `on_end` is called once.
    ///
    /// # Errors
    /// No descriptors left, or the Worker is gone.
    pub fn open(
        id: ConnectionId,
        control: Arc<OwnedFd>,
        on_end: impl Fn(End) + Send + Sync + 'static,
    ) -> io::Result<Arc<Self>> {
        let control = Control::new(control)?;
        let (ours, theirs) = pair()?;
        let stream = Stream::new(ours)?;
        let kept = control.send(&Record::Connection { id }, theirs)?;
        let connection = Arc::new(Self {
            id,
            control,
            stream,
            state: Mutex::default(),
            unblock: Notify::new(),
            drained: Notify::new(),
            greeted: Notify::new(),
            tasks: OnceLock::new(),
            on_end: Box::new(on_end),
        });
        if kept {
            connection.unblock.notify_one();
        }
        let reading = tokio::spawn(Arc::clone(&connection).read());
        let writing = tokio::spawn(Arc::clone(&connection).write());
        let _ = connection.tasks.set([reading.abort_handle(), writing.abort_handle()]);
        Ok(connection)
    }

    /// True when nothing comes any more.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state().ended
    }

    /// Waits until the Worker has said hello; false when the connection ended first.
    pub async fn greeting(&self) -> bool {
        loop {
            let notified = self.greeted.notified();
            {
                let state = self.state();
                if state.greeted || state.ended {
                    return state.greeted;
                }
            }
            notified.await;
        }
    }

    /// Tells the Worker that no more requests will come.
    pub fn shut_down(self: &Arc<Self>) {
        let mut state = self.state();
        // An encoding of a message without fields can't fail.
        let _ = self.append(&mut state, &ToWorker::Shutdown, &[]);
    }

    /// Ends the connection: everything open on it fails.
    pub fn close(&self) {
        self.end(None);
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the Worker's hello.
    pub(super) fn greet(&self, state: &mut State) {
        state.greeted = true;
        self.greeted.notify_waiters();
    }

    /// Ends the connection for a violation found outside its reader.
    pub(super) fn violated(&self, violation: Violation) {
        self.end(Some(violation));
    }

    /// Makes the writer task look at the control socket's backlog and the outbox.
    pub(super) fn wake_writer(&self) {
        self.unblock.notify_one();
    }

    /// Waits until there is room for another message.
    pub(super) async fn room(&self) {
        while !self.has_room() {
            let notified = self.drained.notified();
            // It may have drained before the waiting began.
            if self.has_room() {
                return;
            }
            notified.await;
        }
    }

    /// True when [`Self::room`] would not wait.
    pub(super) fn has_room(&self) -> bool {
        let state = self.state();
        state.ended || state.out.broken || state.out.waiting() < HIGH_WATER
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush(&self) {
        self.write_out(&mut self.state());
    }

    pub(super) fn write_out(&self, state: &mut State) {
        state.out.dirty = false;
        if state.out.blocked || state.out.broken || state.ended {
            return;
        }
        while state.out.waiting() > 0 {
            let waiting = state.out.bytes.get(state.out.sent..).unwrap_or_default();
            match self.stream.try_write(waiting) {
                Ok(count) => state.out.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.out.blocked = true;
                    self.unblock.notify_one();
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It is gone, or reads no more; the reader takes its last answers.
                Err(_) => {
                    state.out.broken = true;
                    self.unblock.notify_one();
                    break;
                }
            }
        }
        self.drained.notify_waiters();
    }

    /// Ends it once; later calls do nothing.
    fn end(&self, violation: Option<Violation>) {
        let (requests, bodies, fetches, unsent_from, greeted, first_unsent);
        {
            let mut state = self.state();
            if state.ended {
                return;
            }
            state.ended = true;
            greeted = state.greeted;
            unsent_from = state.out.total_sent;
            requests = std::mem::take(&mut state.requests);
            bodies = std::mem::take(&mut state.bodies);
            fetches = std::mem::take(&mut state.fetches);
            state.out = super::state::Outbox::default();
        }
        first_unsent = unsent_from;
        let mut trash = Trash::default();
        let mut bodies = bodies;
        for (_, fetch) in fetches {
            fetch.task.abort();
        }
        for (id, mut request) in requests {
            if let Some(answer) = request.answer.take() {
                let _ = answer.send(Err(lost(id, request.position >= first_unsent, &mut bodies)));
            }
            if let Some(task) = request.timer.take() {
                task.abort();
            }
        }
        for (_, body) in bodies {
            trash.body(Some(body));
        }
        drop(trash);
        self.greeted.notify_waiters();
        self.drained.notify_waiters();
        (self.on_end)(match violation {
            Some(Violation(text)) => End::Violation(text),
            None => End::Closed { greeted },
        });
        if let Some(tasks) = self.tasks.get() {
            tasks.iter().for_each(AbortHandle::abort);
        }
    }

    async fn read(self: Arc<Self>) {
        let mut frames = FrameReader::new();
        let violation = loop {
            match self.stream.read(frames.space()).await {
                Ok(0) if frames.is_empty() => break None,
                Ok(0) => break Some(Violation::new("ended its stream inside a message")),
                Ok(_) => {}
                Err(_) => break None,
            }
            if let Err(violation) = self.take_frames(&mut frames).await {
                break Some(violation);
            }
        };
        self.end(violation);
    }

    async fn take_frames(self: &Arc<Self>, frames: &mut FrameReader) -> Result<(), Violation> {
        loop {
            for _ in 0..IN_A_ROW {
                match frames.next_frame::<FromWorker>() {
                    Ok(Some((message, body))) => self.receive(message, body)?,
                    Ok(None) => return Ok(()),
                    Err(error) => return Err(Violation::new(error.to_string())),
                }
            }
            // Others of this thread have their turn.
            tokio::task::yield_now().await;
        }
    }

    async fn write(self: Arc<Self>) {
        loop {
            self.unblock.notified().await;
            if self.state().out.broken {
                tokio::time::sleep(LAST_WORDS).await;
                return self.end(None);
            }
            let stall = Duration::from_secs(STALL_SECONDS);
            let written = tokio::time::timeout(stall, async {
                self.control.drain().await?;
                self.stream.room().await
            });
            match written.await {
                Ok(Ok(())) => {
                    self.state().out.blocked = false;
                    self.flush();
                }
                Ok(Err(_)) => return self.end(None),
                Err(_) => {
                    let text = format!("left its socket unread for {STALL_SECONDS} s");
                    return self.end(Some(Violation(text)));
                }
            }
        }
    }
}

/// What a request that lost its connection is told.
fn lost(
    id: RequestId,
    unsent: bool,
    bodies: &mut super::state::Map<cloister_ipc::worker::BodyRef, super::state::OpenBody>,
) -> CallError {
    if !unsent {
        return CallError::Gone;
    }
    match bodies.remove(&cloister_ipc::worker::BodyRef::Request(id)) {
        Some(super::state::OpenBody::Held(body)) => CallError::Unsent(body),
        _ => CallError::Unsent(crate::body::Body::empty()),
    }
}

#[cfg(test)]
mod tests {
    use cloister_ipc::frame;
    use cloister_ipc::worker::BodyRef;

    use super::*;

    #[tokio::test]
    async fn a_flood_leaves_others_their_turn() {
        let (ours, _theirs) = pair().unwrap();
        let connection = Connection::open(1, Arc::new(ours.into()), |_| {}).unwrap();
        {
            let mut state = connection.state();
            (state.greeted, state.last_request) = (true, 1);
        }
        let mut frames = FrameReader::new();
        let mut bytes = Vec::new();
        for _ in 0..1000 {
            frame::append(&FromWorker::Discard { body: BodyRef::Request(1) }, &[], &mut bytes).unwrap();
        }
        frames.space().extend_from_slice(&bytes);
        let mut taking = std::pin::pin!(connection.take_frames(&mut frames));
        let mut turns = 0;
        while futures_util::poll!(taking.as_mut()).is_pending() {
            turns += 1;
        }
        assert_eq!(turns, 1000 / IN_A_ROW);
    }
}
