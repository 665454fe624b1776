//! Workers that break the protocol: they end, alone, and nobody else notices.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use cloister::Body as WorkerBody;
use cloister_ipc::control::Control;
use cloister_ipc::worker::{
    BodyRef, FetchError, FromWorker, RequestHead, ResponseHead, Target, ToWorker, WorkerBody as Tag,
};
use cloister_ipc::{PROTOCOL, codec, descriptors, frame, limits};
use cloister_supervisor::limits::Limits;
use cloister_supervisor::outcome::{Failure, Outcome};
use cloister_supervisor::registry::{Binding, Deployed};
use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::double::{Plane, Program, account, get, text, worker};

/// A Worker's end of the protocol, by hand.
struct Peer {
    stream: UnixStream,
    frames: frame::FrameReader,
    _control: tokio::net::UnixDatagram,
}

impl Peer {
    async fn connect(control: OwnedFd) -> Self {
        let socket = std::os::unix::net::UnixDatagram::from(control);
        let control = tokio::net::UnixDatagram::from_std(socket).unwrap();
        loop {
            control.readable().await.unwrap();
            let mut buffer = vec![0; limits::CONTROL_BYTES];
            let received =
                control.try_io(tokio::io::Interest::READABLE, || descriptors::receive(&control, &mut buffer));
            let Ok((length, mut received)) = received else { continue };
            let record: Control = codec::decode(&buffer[..length], limits::CONTROL_BYTES).unwrap();
            if matches!(record, Control::Connection { .. }) {
                let stream = std::os::unix::net::UnixStream::from(received.pop().unwrap());
                stream.set_nonblocking(true).unwrap();
                let stream = UnixStream::from_std(stream).unwrap();
                return Self { stream, frames: frame::FrameReader::new(), _control: control };
            }
        }
    }

    async fn say(&mut self, message: &FromWorker, body: &[u8]) {
        let mut bytes = Vec::new();
        frame::append(message, body, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn hello(&mut self) {
        self.say(&FromWorker::Hello { protocol: PROTOCOL }, &[]).await;
    }

    async fn request(&mut self) -> u64 {
        loop {
            if let Some((ToWorker::Request { id, .. }, _)) = self.frames.next_frame().unwrap() {
                return id;
            }
            self.stream.read_buf(self.frames.space()).await.unwrap();
        }
    }

    /// Waits for the end that it earned.
    async fn ended(&mut self) {
        while matches!(self.stream.read_buf(self.frames.space()).await, Ok(1..)) {}
    }
}

fn head(status: u16) -> ResponseHead {
    ResponseHead { status, headers: Vec::new() }
}

fn request(method: &str, uri: &str) -> RequestHead {
    RequestHead { method: method.into(), uri: uri.into(), headers: Vec::new() }
}

/// Workers that never answer, `hangs0` and so on.
const HANGING: u64 = 10;

/// Deploys a peer that greets, gets a request, and then does `evil`.
fn evil<F>(plane: &Plane, evil: F)
where
    F: AsyncFn(&mut Peer, u64) + Clone + Send + Sync + 'static,
{
    let program: Program = Arc::new(move |control, _| {
        let evil = evil.clone();
        Box::pin(async move {
            let mut peer = Peer::connect(control).await;
            peer.hello().await;
            let id = peer.request().await;
            evil(&mut peer, id).await;
            peer.ended().await;
        })
    });
    let service = |name: &str| Binding::Service { service: name.into() };
    let mut bindings = BTreeMap::from([("MIRROR".to_owned(), service("mirror"))]);
    for number in 0..HANGING {
        let name = format!("hangs{number}");
        bindings.insert(name.to_uppercase(), service(&name));
        plane.sdk(Deployed { concurrency: 1000, ..worker(&name) }, |_, _, _| std::future::pending());
    }
    plane.deploy(Deployed { bindings, ..worker("evil") }, program);
    plane.sdk(worker("good"), |_, _, _| async move { Ok(Response::new(WorkerBody::from("good"))) });
}

/// The evil Worker fails with `failure` and for `reason`; the good one does not notice.
async fn fails(plane: &Plane, failure: Failure, reason: &str) {
    let refusal = plane.ask("evil", get("http://a/")).await.unwrap_err();
    // The invocation ends with the last of its fetches.
    let records = loop {
        match plane.invocations(&account("evil")) {
            records if records.is_empty() => tokio::task::yield_now().await,
            records => break records,
        }
    };
    let told = records.last().unwrap().reason.clone().unwrap_or_default();
    assert!(told.contains(reason), "{told}");
    assert_eq!(refusal.failure, failure, "{told}");
    assert_eq!(records.last().unwrap().outcome, Outcome::Exception);
    assert_eq!(text(plane.ask("good", get("http://a/")).await.unwrap()).await, "good");
}

macro_rules! evil {
    ($name:ident, $failure:ident, $reason:expr, |$peer:ident, $id:ident| $body:block) => {
        #[tokio::test]
        async fn $name() {
            let plane = Plane::new();
            evil(&plane, async |$peer: &mut Peer, $id: u64| $body);
            fails(&plane, Failure::$failure, $reason).await;
        }
    };
}

evil!(garbage_on_the_stream, Exception, "claims a message", |peer, _id| {
    peer.stream.write_all(&[0xff; 64]).await.unwrap();
});

evil!(an_id_never_given, Exception, "not open", |peer, id| {
    let message = FromWorker::Response { id: id + 7, head: head(200), body: Tag::Empty, wait_until: false };
    peer.say(&message, &[]).await;
});

evil!(a_header_that_is_none, BadResponse, "response headers", |peer, id| {
    let head = ResponseHead { status: 200, headers: vec![3, 0, 1, 0, b'a', b'\n', b'b', b'c'] };
    peer.say(&FromWorker::Response { id, head, body: Tag::Empty, wait_until: false }, &[]).await;
});

evil!(a_status_that_is_none, BadResponse, "status 99", |peer, id| {
    peer.say(&FromWorker::Response { id, head: head(99), body: Tag::Empty, wait_until: false }, &[]).await;
});

evil!(a_101_without_a_tunnel, BadResponse, "without a tunnel", |peer, id| {
    peer.say(&FromWorker::Response { id, head: head(101), body: Tag::Empty, wait_until: false }, &[]).await;
});

evil!(a_101_that_nobody_asked_for, BadResponse, "did not ask for", |peer, id| {
    peer.say(&FromWorker::Response { id, head: head(101), body: Tag::Tunnel, wait_until: false }, &[]).await;
});

evil!(an_interim_answer, BadResponse, "not final", |peer, id| {
    peer.say(&FromWorker::Response { id, head: head(103), body: Tag::Empty, wait_until: false }, &[]).await;
});

evil!(a_body_it_does_not_hold, BadResponse, "not held", |peer, id| {
    let body = Tag::Forward(BodyRef::FetchResponse(4));
    peer.say(&FromWorker::Response { id, head: head(200), body, wait_until: false }, &[]).await;
});

evil!(body_bytes_where_none_are_due, Exception, "has none", |peer, id| {
    let message = FromWorker::Response { id, head: head(200), body: Tag::Empty, wait_until: false };
    peer.say(&message, b"surprise").await;
});

evil!(too_many_fetches, Exception, "fetches in flight", |peer, id| {
    for fetch in 1..=u64::try_from(limits::FETCHES_IN_FLIGHT).unwrap() + 1 {
        let head = RequestHead { method: "GET".into(), uri: "http://a/".into(), headers: Vec::new() };
        // One of them is asked only so many at a time.
        let binding = format!("HANGS{}", fetch % HANGING);
        let (target, body) = (Target::Service { binding }, Tag::Empty);
        peer.say(&FromWorker::Fetch { fetch, request: id, target, head, body }, &[]).await;
    }
});

evil!(a_fetch_number_twice, Exception, "numbers a fetch", |peer, id| {
    for _ in 0..2 {
        let head = RequestHead { method: "GET".into(), uri: "http://a/".into(), headers: Vec::new() };
        let (target, body) = (Target::Egress, Tag::Empty);
        peer.say(&FromWorker::Fetch { fetch: 1, request: id, target, head, body }, &[]).await;
    }
});

/// It leaves its control socket unread until no more fits, and holds bodies that are written by another
/// Worker, who holds bodies of its own: letting go of one asks for the lock of its connection.
#[tokio::test]
async fn bodies_that_it_can_not_be_given_a_socket_for() {
    const HELD: u64 = 120;
    let plane = Plane::new();
    evil(&plane, async |peer: &mut Peer, id: u64| {
        // Each takes a place in the control socket.
        let fetch = |fetch: u64, binding: &str| FromWorker::Fetch {
            fetch,
            request: id,
            target: Target::Service { binding: binding.into() },
            head: RequestHead { method: "POST".into(), uri: "http://a/".into(), headers: Vec::new() },
            body: Tag::Stream { length: None },
        };
        for number in 1..=HELD {
            peer.say(&fetch(number, "MIRROR"), &[]).await;
        }
        let mut held = 0;
        while held < HELD {
            match peer.frames.next_frame::<ToWorker>().unwrap() {
                Some((message, _)) => held += u64::from(matches!(message, ToWorker::Response { .. })),
                None => drop(peer.stream.read_buf(peer.frames.space()).await.unwrap()),
            }
        }
        for number in HELD + 1..=HELD + 400 {
            peer.say(&fetch(number, "HANGS0"), &[]).await;
            peer.say(&FromWorker::CancelFetch { fetch: number }, &[]).await;
        }
        for fetch in 1..=HELD {
            let mut bytes = Vec::new();
            frame::append(&FromWorker::Open { body: BodyRef::FetchResponse(fetch) }, &[], &mut bytes)
                .unwrap();
            if peer.stream.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    // Answers at once, keeps what it was sent without a look, and never comes to an end.
    plane.sdk(Deployed { concurrency: 1000, ..worker("mirror") }, |request, _, _| async move {
        let frames = futures_util::stream::once(async move {
            std::future::pending::<()>().await;
            drop(request);
            Err::<http_body::Frame<bytes::Bytes>, cloister::BoxError>("never".into())
        });
        Ok(Response::new(WorkerBody::new(http_body_util::StreamBody::new(frames))))
    });
    fails(&plane, Failure::Exception, "does not read its control socket").await;
}

evil!(a_second_hello, Exception, "hello twice", |peer, _id| {
    peer.hello().await;
});

evil!(half_a_message, Exception, "inside a message", |peer, _id| {
    peer.stream.write_all(&[5, 0, 0]).await.unwrap();
    peer.stream.shutdown().await.unwrap();
});

evil!(an_endless_exception, Exception, "exception text", |peer, id| {
    peer.say(&FromWorker::Exception { id, message: "x".repeat(5000) }, &[]).await;
});

evil!(a_flood_about_what_is_over, Exception, "floods", |peer, id| {
    let body = BodyRef::Request(id);
    for _ in 0..10_000 {
        let mut bytes = Vec::new();
        frame::append(&FromWorker::Discard { body }, &[], &mut bytes).unwrap();
        if peer.stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
});

// They wait for their answers as any other that is refused, and take places meanwhile.
evil!(a_flood_of_senseless_fetches, Exception, "fetches in flight", |peer, id| {
    for fetch in 1..1_000_000 {
        let message = FromWorker::Fetch {
            fetch,
            request: id,
            target: Target::Egress,
            head: request("GET", "no-uri"),
            body: Tag::Empty,
        };
        let mut bytes = Vec::new();
        frame::append(&message, &[], &mut bytes).unwrap();
        if peer.stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
});

evil!(a_handoff_that_asks_for_a_tunnel, BadResponse, "CONNECT asks for a tunnel", |peer, id| {
    let (target, head) =
        (Target::Service { binding: "MIRROR".into() }, Some(request("CONNECT", "http://a/")));
    peer.say(&FromWorker::Handoff { id, target, head, body: Tag::Empty, wait_until: false }, &[]).await;
});

/// What makes no sense is a subrequest, and told to be none once those are used up.
#[tokio::test]
async fn senseless_fetches_cost_subrequests() {
    let plane = Plane::new();
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    evil(&plane, async move |peer: &mut Peer, id: u64| {
        let senseless = [
            ("GET", "no-uri"),
            ("G ET", "http://a/"),
            ("CONNECT", "http://a/"),
            ("CONNECT", "http://a/"),
            ("GET", "http://a/"),
        ];
        for (fetch, (method, uri)) in (1..).zip(senseless) {
            let (target, head, body) = (Target::Egress, request(method, uri), Tag::Empty);
            peer.say(&FromWorker::Fetch { fetch, request: id, target, head, body }, &[]).await;
            loop {
                match peer.frames.next_frame::<ToWorker>().unwrap() {
                    Some((ToWorker::FetchFailed { error, .. }, _)) => break sender.send(error).unwrap(),
                    Some((other, _)) => panic!("{other:?}"),
                    None => drop(peer.stream.read_buf(peer.frames.space()).await.unwrap()),
                }
            }
        }
        let message = FromWorker::Response { id, head: head(200), body: Tag::Empty, wait_until: false };
        peer.say(&message, &[]).await;
    });
    let limits = Limits { subrequests: Some(3), ..Limits::default() };
    assert!(plane.ask_within("evil", get("http://a/"), limits).await.is_ok());
    for what in ["not absolute", "not a token", "CONNECT asks for a tunnel"] {
        let error = told.recv().await.unwrap();
        assert!(matches!(&error, FetchError::Invalid(text) if text.contains(what)), "{error:?}");
    }
    for _ in 0..2 {
        assert_eq!(told.recv().await.unwrap(), FetchError::Subrequests);
    }
    assert_eq!(plane.invocations(&account("evil"))[0].subrequests, 3);
}

#[tokio::test]
async fn an_answer_given_twice_ends_the_process_not_the_answer() {
    let plane = Plane::new();
    evil(&plane, async |peer: &mut Peer, id: u64| {
        for _ in 0..2 {
            let message = FromWorker::Response { id, head: head(200), body: Tag::Inline, wait_until: false };
            let mut bytes = Vec::new();
            frame::append(&message, b"once", &mut bytes).unwrap();
            let _ = peer.stream.write_all(&bytes).await;
        }
    });
    assert_eq!(text(plane.ask("evil", get("http://a/")).await.unwrap()).await, "once");
    // The next request may have been sent to the process before the second answer was read.
    let next = match plane.ask("evil", get("http://a/")).await {
        Err(lost) if lost.failure == Failure::Exception => plane.ask("evil", get("http://a/")).await,
        next => next,
    };
    assert_eq!(text(next.unwrap()).await, "once");
    assert_eq!(plane.starter.starts.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test]
async fn another_protocol_is_told_apart() {
    let plane = Plane::new();
    let program: Program = Arc::new(|control, _| {
        Box::pin(async move {
            let mut peer = Peer::connect(control).await;
            peer.say(&FromWorker::Hello { protocol: PROTOCOL + 1 }, &[]).await;
            peer.ended().await;
        })
    });
    plane.deploy(worker("old"), program);
    let deployed = plane.registry.snapshot().find(None, "old").unwrap().clone();
    let error = plane.dispatcher.pool().probe(&deployed).await.unwrap_err();
    assert!(error.message.contains("matching SDK"), "{error}");
}
