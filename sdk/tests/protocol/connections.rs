//! Starting, several connections, back-pressure, and ways to end.

use std::io::Write;
use std::sync::Arc;

use cloister::{Body, Error, Request, Response};
use cloister_ipc::control::Control;
use cloister_ipc::worker::{FromWorker, HostBody, ToWorker};
use cloister_ipc::{frame, limits};
use http::HeaderMap;
use tokio::sync::Notify;

use crate::supervisor::{Supervisor, request_head, start_record};

fn echo() -> (Supervisor, crate::supervisor::Connection) {
    Supervisor::run(|request: Request, _env, _ctx| async move { Response::new(request.into_body()) })
}

#[test]
fn each_connection_has_its_own_requests() {
    let (supervisor, mut first) = echo();
    let mut second = supervisor.connect(1);
    let head = request_head("POST", "http://a.example/", &HeaderMap::new());
    let a = first.ask(head.clone(), HostBody::Inline, b"first");
    let b = second.ask(head, HostBody::Inline, b"second");
    assert_eq!(a, b);
    assert_eq!(second.response(b).text(), "second");
    assert_eq!(first.response(a).text(), "first");
    // One goes away, the other stays.
    drop(first);
    let id = second.get("/");
    second.response(id);
    // A socket for a connection that is gone is not an error.
    let gone = supervisor.connect(2);
    let _socket = supervisor.give(&gone, cloister_ipc::worker::BodyRef::Response(1));
    drop(gone);
    let id = second.get("/");
    second.response(id);
    supervisor.leave().unwrap();
}

#[test]
fn shutdown_finishes_what_is_open() {
    let release = Arc::new(Notify::new());
    let gate = release.clone();
    let (supervisor, mut connection) =
        Supervisor::run(move |request: Request, _env, ctx: cloister::Context| {
            let gate = gate.clone();
            async move {
                if request.uri().path() == "/work" {
                    ctx.wait_until(async move { gate.notified().await });
                } else {
                    gate.notified().await;
                }
                Response::new(Body::from("finished"))
            }
        });
    let work = connection.get("/work");
    assert!(connection.response(work).wait_until);
    let slow = connection.get("/slow");
    connection.send(&ToWorker::Shutdown, &[]);
    release.notify_one();
    connection.expect(&FromWorker::Done { id: work });
    release.notify_one();
    assert_eq!(connection.response(slow).text(), "finished");
    assert!(connection.try_receive().is_none());
    supervisor.end().unwrap();
}

#[test]
fn an_idle_worker_shuts_down_at_once() {
    let (supervisor, mut connection) = echo();
    connection.send(&ToWorker::Shutdown, &[]);
    assert!(connection.try_receive().is_none());
    supervisor.end().unwrap();
}

#[test]
fn the_end_of_the_control_socket_is_the_end() {
    let (supervisor, mut connection) = Supervisor::run(|_request: Request, _env, _ctx| async {
        std::future::pending::<()>().await;
        Response::new(Body::empty())
    });
    connection.get("/");
    supervisor.leave().unwrap();
    // Also before the start.
    let handler = |request: Request, _, _| async move { Response::new(request.into_body()) };
    Supervisor::silent(move |control| cloister::run_on(control, handler)).leave().unwrap();
}

#[test]
fn another_protocol_is_refused() {
    let handler = |request: Request, _, _| async move { Response::new(request.into_body()) };
    let supervisor = Supervisor::silent(move |control| cloister::run_on(control, handler));
    let mut start = start_record();
    start.protocol = 99;
    supervisor.tell(&Control::Start(start), &[]);
    assert!(matches!(supervisor.end(), Err(Error::Protocol { theirs: 99, .. })));
}

#[test]
fn garbage_ends_the_worker_with_an_error() {
    let (supervisor, mut connection) = echo();
    connection.stream.write_all(&[0xff; 64]).unwrap();
    assert!(matches!(supervisor.end(), Err(Error::Frame(_))));
    let supervisor = echo().0;
    supervisor.tell(&Control::Connection { id: 7 }, &[]);
    assert!(matches!(supervisor.end(), Err(Error::Order(_))));
}

#[test]
fn a_supervisor_that_does_not_read_is_waited_for() {
    let (_supervisor, mut connection) = echo();
    let head = request_head("POST", "http://a.example/", &HeaderMap::new());
    let mut bytes = Vec::new();
    let mut asked = 0;
    // Asks, reading nothing, until the Worker takes no more.
    connection.stream.set_nonblocking(true).unwrap();
    let rest = loop {
        bytes.clear();
        let (_, message) = connection.next(head.clone(), HostBody::Inline);
        frame::append(&message, &[1; limits::INLINE_BODY_BYTES], &mut bytes).unwrap();
        asked += 1;
        let mut rest = &bytes[..];
        let mut waits = 0;
        while !rest.is_empty() && waits < 3 {
            match connection.stream.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(_) => {
                    // The Worker has this long to take more; a busy machine only makes the test weaker.
                    let poll = rustix::event::PollFd::new(&connection.stream, rustix::event::PollFlags::OUT);
                    let patience = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                    rustix::event::poll(&mut [poll], Some(&patience)).unwrap();
                    waits += 1;
                }
            }
        }
        if !rest.is_empty() {
            break rest.to_vec();
        }
        assert!(asked < 1000, "the Worker takes requests without end");
    };
    connection.stream.set_nonblocking(false).unwrap();
    // What it took is bounded: two socket buffers, its input and its output.
    assert!(asked < 64, "the Worker holds {asked} answers");
    let mut writer = connection.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || writer.write_all(&rest).unwrap());
    for id in 1..=asked {
        assert_eq!(connection.response(id).inline.len(), limits::INLINE_BODY_BYTES);
    }
    writing.join().unwrap();
}
