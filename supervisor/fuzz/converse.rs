//! The supervisor's side of the `ipc` contract (`worker::ipc`), all of it, against a Worker whose every
//! word is a choice of the input: over the real sockets, in one thread. The fuzz target's and the smoke
//! test's.
//!
//! What must hold, whatever is said: no panic; every request comes to an end; the connection ends
//! exactly once, with a reason when it was the Worker's fault; nothing of it is left; a connection
//! beside it goes on.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use cloister_ipc::borrowed::Context;
use cloister_ipc::control::Control;
use cloister_ipc::frame::{self, FrameReader};
use cloister_ipc::worker::{FetchError, FromWorker, ResponseHead, Target, ToWorker, WorkerBody};
use cloister_ipc::{PROTOCOL, codec, descriptors, limits};
use cloister_supervisor::body::{Body, BodyError};
use cloister_supervisor::egress;
use cloister_supervisor::registry::WorkerId;
use cloister_supervisor::worker::ipc::{Connection, End};
use cloister_supervisor::worker::{Answer, CallError, Caller, Tunnel};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};
use tokio::task::JoinHandle;

use crate::script::{Known, Script};

/// Longest anything may wait for its end. A bound for what failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the kernel takes with one message (`SCM_MAX_FD`).
const MOST_DESCRIPTORS: usize = 253;

/// How a conversation went, for counting.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Requests that got a response or a handoff.
    pub(crate) answered: usize,
    /// Requests that failed.
    pub(crate) failed: usize,
    /// Messages that came with descriptors.
    pub(crate) given: usize,
    /// What the Worker was ended for.
    pub(crate) violation: Option<String>,
}

/// Plays one conversation. Panics when something that must hold does not.
pub(crate) fn converse(bytes: &[u8]) -> Told {
    thread_local! {
        // The sockets are looked at after every task: a conversation is over in few turns.
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().event_interval(1).build().unwrap();
    }
    RUNTIME.with(|runtime| {
        runtime.block_on(async {
            tokio::time::timeout(PATIENCE * 2, conversation(bytes)).await.expect("an end of the conversation")
        })
    })
}

async fn conversation(bytes: &[u8]) -> Told {
    let mut script = Script::new(bytes);
    let mut worker = Worker::new();
    let mut neighbour = Worker::new();
    neighbour.hello();
    if !script.rarely(16) {
        worker.hello();
        worker.connection.greeting().await;
    }
    worker.known.care = [4, 16, 64, 256][script.below(4)];
    let mut calls: Vec<JoinHandle<Result<(), ()>>> = Vec::new();
    for _ in 0..200 {
        if script.is_over() || worker.connection.is_ended() {
            break;
        }
        step(&mut script, &mut worker, &mut calls).await;
        turns(3).await;
    }
    let told = worker.end(calls).await;
    neighbour.answers_one().await;
    let beside = neighbour.end(Vec::new()).await;
    assert_eq!(beside.violation, None, "the connection beside ended too");
    told
}

/// Lets the supervisor's tasks run.
async fn turns(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

async fn step(script: &mut Script<'_>, worker: &mut Worker, calls: &mut Vec<JoinHandle<Result<(), ()>>>) {
    match script.below(32) {
        0..=3 if calls.len() < 8 => {
            worker.known.requests += 1;
            worker.known.open.push(worker.known.requests);
            let kind = script.below(4);
            if kind > 1 {
                worker.known.held.push(worker.known.requests);
            }
            let body = match kind {
                0 => Body::empty(),
                1 => Body::full(vec![b'q'; script.length()]),
                2 => stream(vec![Ok("one"), Ok("two")]),
                _ => stream(vec![Ok("one"), Err(())]),
            };
            let read = !script.rarely(4);
            calls.push(tokio::spawn(call(Arc::clone(&worker.connection), body, read)));
            turns(2).await;
        }
        4 if !calls.is_empty() => calls[script.below(calls.len())].abort(),
        5 if script.rarely(worker.known.care) => {
            let frame = script.damaged_frame(&mut worker.known);
            worker.say(&frame);
        }
        6 if script.rarely(worker.known.care) => worker.say(script.raw()),
        7 if script.rarely(worker.known.care) => worker.with_descriptors(script),
        8..=15 => worker.with_a_body(script),
        16 => worker.listen(),
        17 => turns(script.below(32)).await,
        _ => {
            let frame = script.frame(&mut worker.known);
            worker.say(&frame);
        }
    }
}

/// A body of which not all is there.
fn stream(parts: Vec<Result<&'static str, ()>>) -> Body {
    let frame = |part: Result<&'static str, ()>| match part {
        Ok(text) => Ok(http_body::Frame::data(Bytes::from(text))),
        Err(()) => Err(BodyError::Aborted),
    };
    Body::boxed(StreamBody::new(futures_util::stream::iter(parts.into_iter().map(frame))))
}

/// One request, to the end of its answer. An error is an error of the Worker's.
async fn call(connection: Arc<Connection>, body: Body, read: bool) -> Result<(), ()> {
    let (parts, ()) = Request::get("http://worker.test/").body(()).unwrap().into_parts();
    match connection.call(&parts, body, Arc::new(Beside)).await {
        Ok(Answer::Response(mut response)) => {
            let status = response.status();
            let tunnel = Tunnel::take(&mut response);
            assert_eq!(status == 101, tunnel.is_some(), "a tunnel goes with 101 and with nothing else");
            assert!(status == 101 || !status.is_informational(), "{status} is no answer");
            for (name, value) in response.headers() {
                let clean = !value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
                assert!(clean, "{name} would split the response");
            }
            if read && tunnel.is_none() {
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            }
            Ok(())
        }
        Ok(Answer::Handoff(handoff)) => {
            assert_ne!(handoff.target, Target::Egress, "the egress filter answers no client");
            Ok(())
        }
        Err(CallError::Unsendable(_) | CallError::Internal(_)) => panic!("the request was a good one"),
        Err(_) => Err(()),
    }
}

/// Whom the Worker's fetches go through: what they come to is in their path.
struct Beside;

impl Caller for Beside {
    fn fetch(
        self: Arc<Self>,
        _target: Target,
        request: Request<Body>,
    ) -> BoxFuture<'static, Result<Response<Body>, FetchError>> {
        Box::pin(async move {
            match request.uri().path() {
                "/7" => Err(FetchError::NotFound),
                "/8" => Ok(Response::new(stream(vec![Ok("three"), Ok("four"), Err(())]))),
                "/9" => std::future::pending().await,
                "/10" => Ok(Response::new(request.into_body())),
                _ => {
                    let (stream, other) = tokio::net::UnixStream::pair().unwrap();
                    drop(other);
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
                    response.extensions_mut().insert(Tunnel::new(stream));
                    Ok(response)
                }
            }
        })
    }

    fn refuse(self: Arc<Self>, reason: String) -> BoxFuture<'static, FetchError> {
        Box::pin(async move { FetchError::Invalid(reason) })
    }

    fn context(&self) -> Context<'_> {
        Context { ray: "ray", client: "192.0.2.1", args: "", outbound: None }
    }

    fn egress(&self) -> egress::Caller {
        egress::Caller {
            worker: WorkerId { namespace: None, name: "worker".into() },
            version: "1".into(),
            ray: "ray".into(),
            depth: 1,
            subrequests: Arc::new(egress::Budget::new(None)),
            outbound: None,
            on_behalf_of: None,
        }
    }
}

/// A Worker's end of one connection, and the supervisor's.
struct Worker {
    connection: Arc<Connection>,
    ends: Arc<Mutex<Vec<End>>>,
    control: OwnedFd,
    stream: UnixStream,
    /// Sockets of bodies that it was given.
    bodies: Vec<UnixStream>,
    /// Other ends of sockets that it gave away.
    kept: Vec<UnixStream>,
    known: Known,
}

impl Worker {
    fn new() -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, control) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&ends);
        let connection =
            Connection::open(0, Arc::new(ours), move |end| heard.lock().unwrap().push(end)).unwrap();
        let mut buffer = vec![0; limits::CONTROL_BYTES];
        let (length, mut received) = descriptors::receive(&control, &mut buffer).unwrap();
        let record: Control = codec::decode(&buffer[..length], limits::CONTROL_BYTES).unwrap();
        assert!(matches!(record, Control::Connection { id: 0 }));
        let stream = UnixStream::from(received.pop().unwrap());
        stream.set_nonblocking(true).unwrap();
        Self {
            connection,
            ends,
            control,
            stream,
            bodies: Vec::new(),
            kept: Vec::new(),
            known: Known::default(),
        }
    }

    /// Writes what the socket takes: the rest is a message that was cut.
    fn say(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn hello(&mut self) {
        let mut bytes = Vec::new();
        frame::append(&FromWorker::Hello { protocol: PROTOCOL }, &[], &mut bytes).unwrap();
        self.say(&bytes);
    }

    /// Reads all that was sent to it.
    fn listen(&mut self) {
        let mut buffer = [0; 65536];
        while matches!(self.stream.read(&mut buffer), Ok(1..)) {}
    }

    /// Bytes with descriptors that nobody asked for: a folder, a file in memory, a socket, or as many as
    /// the kernel takes.
    fn with_descriptors(&mut self, script: &mut Script<'_>) {
        let (given, kept) = UnixStream::pair().unwrap();
        let folder = File::open("/").unwrap();
        let memory = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let one = [given.as_fd()];
        let every = [given.as_fd(); MOST_DESCRIPTORS];
        let choices: [&[BorrowedFd<'_>]; 4] = [&one, &[folder.as_fd()], &[memory.as_fd()], &every];
        let given = choices[script.below(choices.len())];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(given)));
        let bytes = [IoSlice::new(script.raw())];
        // Its other side may be gone, or full.
        if sendmsg(&self.stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL).is_ok() {
            self.kept.push(kept);
        }
    }

    /// Takes the sockets that it was sent, and does something with one.
    fn with_a_body(&mut self, script: &mut Script<'_>) {
        let mut buffer = vec![0; limits::CONTROL_BYTES];
        while let Ok((1.., received)) = descriptors::receive(&self.control, &mut buffer) {
            for socket in received {
                let socket = UnixStream::from(socket);
                socket.set_nonblocking(true).unwrap();
                self.bodies.push(socket);
            }
        }
        if self.bodies.is_empty() {
            return;
        }
        let at = script.below(self.bodies.len());
        let socket = &mut self.bodies[at];
        match script.below(6) {
            0 => drop(self.bodies.swap_remove(at)),
            1 => drop(socket.shutdown(std::net::Shutdown::Write)),
            2 => drop(socket.shutdown(std::net::Shutdown::Both)),
            3 => drop(socket.read(&mut [0; 65536])),
            4 => drop(socket.write(&vec![b'w'; script.length()])),
            // Five is a length that some announced.
            _ => {
                let _ = socket.write(b"wwwww");
                drop(socket.shutdown(std::net::Shutdown::Write));
            }
        }
    }

    /// An honest answer to a request of the supervisor.
    async fn answers_one(&mut self) {
        let asked = tokio::spawn(call(Arc::clone(&self.connection), Body::empty(), true));
        let mut frames = FrameReader::new();
        let id = loop {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(count) => frames.space().extend_from_slice(&buffer[..count]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "the connection beside is gone")
                }
            }
            if let Some((ToWorker::Request { id, .. }, _)) = frames.next_frame().unwrap() {
                break id;
            }
            turns(1).await;
        };
        let head = ResponseHead { status: 200, headers: Vec::new() };
        let response = FromWorker::Response { id, head, body: WorkerBody::Empty, wait_until: false };
        let mut bytes = Vec::new();
        frame::append(&response, &[], &mut bytes).unwrap();
        self.say(&bytes);
        let answer = tokio::time::timeout(PATIENCE, asked).await.expect("an answer beside").unwrap();
        assert_eq!(answer, Ok(()), "the connection beside failed");
    }

    /// The process goes away; everything must be over.
    async fn end(self, calls: Vec<JoinHandle<Result<(), ()>>>) -> Told {
        let Self { connection, ends, control, stream, bodies, kept, .. } = self;
        drop((stream, control, bodies));
        let mut told = Told { given: kept.len(), ..Told::default() };
        for call in calls {
            match tokio::time::timeout(PATIENCE, call).await.expect("a request hangs") {
                Ok(Ok(())) => told.answered += 1,
                Ok(Err(())) => told.failed += 1,
                Err(error) if error.is_cancelled() => {}
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        let left: Weak<Connection> = Arc::downgrade(&connection);
        wait_until("an end of the connection", || connection.is_ended()).await;
        drop(connection);
        wait_until("nothing left of the connection", || left.strong_count() == 0).await;
        for kept in kept {
            kept.set_nonblocking(true).unwrap();
            let is_over = || matches!((&kept).read(&mut [0]), Ok(0));
            wait_until("an end of what it gave away", is_over).await;
        }
        let ends = std::mem::take(&mut *ends.lock().unwrap());
        assert_eq!(ends.len(), 1, "it ended {ends:?}");
        if let Some(End::Violation(text)) = ends.into_iter().next() {
            assert!(!text.is_empty(), "ended for no reason");
            told.violation = Some(text);
        }
        told
    }
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    });
    assert!(waited.await.is_ok(), "{what} does not come");
}
