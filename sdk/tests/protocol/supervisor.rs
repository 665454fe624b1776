//! The other end of the Worker protocol, in plain blocking calls.

use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use cloister::{Answer, BoxError, Context, Env, Error, Request};
use cloister_ipc::control::{Control, EnvBinding, Start};
use cloister_ipc::frame::{self, FrameReader};
use cloister_ipc::limits::CONTROL_BYTES;
use cloister_ipc::worker::{self, BodyRef, FromWorker, HostBody, RequestHead, ResponseHead, ToWorker};
use cloister_ipc::{PROTOCOL, codec, descriptors, head};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// A read that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A supervisor with one Worker, which runs in a thread.
pub(crate) struct Supervisor {
    control: Option<OwnedFd>,
    worker: Option<JoinHandle<Result<(), Error>>>,
}

/// One connection to the Worker.
pub(crate) struct Connection {
    id: u32,
    pub(crate) stream: UnixStream,
    reader: FrameReader,
    last: u64,
}

pub(crate) fn start_record() -> Start {
    Start {
        protocol: PROTOCOL,
        namespace: "production".to_owned(),
        worker: "customer-a".to_owned(),
        version: "v1".to_owned(),
        env: vec![
            ("GREETING".to_owned(), EnvBinding::Text("hello".to_owned())),
            ("KEY".to_owned(), EnvBinding::Secret("s3cret".to_owned())),
            ("PLANS".to_owned(), EnvBinding::Json(r#"{"free":5}"#.to_owned())),
            ("DISPATCHER".to_owned(), EnvBinding::DispatchNamespace { namespace: "production".to_owned() }),
            ("BILLING".to_owned(), EnvBinding::Service { service: "billing".to_owned() }),
        ],
    }
}

impl Supervisor {
    /// A Worker made by `serve`, told nothing yet.
    pub(crate) fn silent<Fut>(serve: impl FnOnce(OwnedFd) -> Fut + Send + 'static) -> Self
    where
        Fut: Future<Output = Result<(), Error>>,
    {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let worker = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, serve(far))
        });
        Self { control: Some(near), worker: Some(worker) }
    }

    /// A Worker made by `serve`, with one connection that has greeted.
    pub(crate) fn serve<Fut>(serve: impl FnOnce(OwnedFd) -> Fut + Send + 'static) -> (Self, Connection)
    where
        Fut: Future<Output = Result<(), Error>>,
    {
        let supervisor = Self::silent(serve);
        supervisor.tell(&Control::Start(start_record()), &[]);
        let connection = supervisor.connect(0);
        (supervisor, connection)
    }

    /// A Worker of a closure.
    pub(crate) fn run<F, Fut>(handler: F) -> (Self, Connection)
    where
        F: Fn(Request, Env, Context) -> Fut + Send + 'static,
        Fut: Future<Output: Answer> + 'static,
    {
        Self::serve(move |control| cloister::run_on(control, handler))
    }

    /// The supervisor of a process of its own, whose control socket's other end is returned.
    pub(crate) fn of_a_process() -> (Self, OwnedFd) {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Self { control: Some(near), worker: None }, far)
    }

    pub(crate) fn tell(&self, control: &Control, fds: &[&dyn AsFdDyn]) {
        let record = codec::encode(control, CONTROL_BYTES).unwrap();
        let fds: Vec<_> = fds.iter().map(|fd| fd.fd()).collect();
        descriptors::send(self.control.as_ref().unwrap(), &record, &fds).unwrap();
    }

    /// Opens a connection and takes its greeting.
    pub(crate) fn connect(&self, id: u32) -> Connection {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        self.tell(&Control::Connection { id }, &[&far]);
        let mut connection = Connection { id, stream: near, reader: FrameReader::new(), last: 0 };
        assert_eq!(connection.receive(), (FromWorker::Hello { protocol: PROTOCOL }, Bytes::new()));
        connection
    }

    /// Gives the Worker the socket of a body; the other end is returned.
    pub(crate) fn give(&self, connection: &Connection, body: BodyRef) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        self.tell(&Control::Body { connection: connection.id, body }, &[&far]);
        near
    }

    /// Goes away; what the Worker ended with.
    pub(crate) fn leave(mut self) -> Result<(), Error> {
        self.control = None;
        self.end()
    }

    /// What the Worker ends with by itself.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.worker.take().unwrap().join().unwrap()
    }
}

/// Anything with a descriptor.
pub(crate) trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

pub(crate) fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

pub(crate) fn request_head(method: &str, uri: &str, headers: &HeaderMap) -> RequestHead {
    RequestHead { method: method.to_owned(), uri: uri.to_owned(), headers: head::encode(headers).unwrap() }
}

pub(crate) fn response_head(status: u16, headers: &HeaderMap) -> ResponseHead {
    ResponseHead { status, headers: head::encode(headers).unwrap() }
}

impl Connection {
    /// Sends one message.
    pub(crate) fn send(&mut self, message: &ToWorker, body: &[u8]) {
        let mut bytes = Vec::new();
        frame::append(message, body, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// A request message with the next number.
    pub(crate) fn next(&mut self, head: RequestHead, body: HostBody) -> (u64, ToWorker) {
        self.last += 1;
        let context = worker::Context {
            ray: format!("ray-{}", self.last),
            client: "203.0.113.7".to_owned(),
            ..Default::default()
        };
        (self.last, ToWorker::Request { id: self.last, head, context, body })
    }

    /// Asks; the number of the request.
    pub(crate) fn ask(&mut self, head: RequestHead, body: HostBody, inline: &[u8]) -> u64 {
        let (id, message) = self.next(head, body);
        self.send(&message, inline);
        id
    }

    /// Asks for a path, without a body.
    pub(crate) fn get(&mut self, path: &str) -> u64 {
        let head = request_head("GET", &format!("http://a.example{path}"), &HeaderMap::new());
        self.ask(head, HostBody::Empty, &[])
    }

    /// Posts a body that the supervisor holds.
    pub(crate) fn post_held(&mut self, path: &str, length: Option<u64>) -> u64 {
        let head = request_head("POST", &format!("http://a.example{path}"), &HeaderMap::new());
        self.ask(head, HostBody::Held { length }, &[])
    }

    /// The next message.
    pub(crate) fn receive(&mut self) -> (FromWorker, Bytes) {
        self.try_receive().expect("the Worker closed the connection")
    }

    /// The next message, or `None` at the end of the stream.
    pub(crate) fn try_receive(&mut self) -> Option<(FromWorker, Bytes)> {
        let mut bytes = [0; 4096];
        loop {
            if let Some(frame) = self.reader.next_frame().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut bytes).expect("the Worker said nothing for too long") {
                0 => {
                    assert!(self.reader.is_empty(), "the stream ended inside a frame");
                    return None;
                }
                count => self.reader.space().extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// The next message, which must be the answer to `request`.
    pub(crate) fn response(&mut self, request: u64) -> Response {
        match self.receive() {
            (FromWorker::Response { id, head, body, wait_until }, inline) => {
                assert_eq!(id, request);
                let headers = head::decode(head.headers).unwrap();
                Response { status: head.status, headers, body, wait_until, inline }
            }
            (other, _) => panic!("expected the response to {request}, got {other:?}"),
        }
    }

    /// The next message, which must be the exception of `request`; its text.
    pub(crate) fn exception(&mut self, request: u64) -> String {
        match self.receive() {
            (FromWorker::Exception { id, message }, _) => {
                assert_eq!(id, request);
                message
            }
            (other, _) => panic!("expected the exception of {request}, got {other:?}"),
        }
    }

    /// The next message, which must be this one.
    pub(crate) fn expect(&mut self, message: &FromWorker) {
        assert_eq!(&self.receive().0, message);
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: worker::WorkerBody,
    pub(crate) wait_until: bool,
    pub(crate) inline: Bytes,
}

impl Response {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.inline).unwrap()
    }
}

/// What a handler that is expected to fail now and then returns.
pub(crate) type Fallible = Result<cloister::Response, BoxError>;
