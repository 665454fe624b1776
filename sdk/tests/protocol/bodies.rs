//! Bodies that travel by socket, in both directions, and those that don't travel.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::Shutdown;

use bytes::Bytes;
use cloister::{Body, BodyError, Request, Response};
use cloister_ipc::head;
use cloister_ipc::worker::{BodyEnd, BodyRef, FromWorker, HostBody, ToWorker, WorkerBody};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::supervisor::{Connection, Fallible, Supervisor, fields, request_head};

/// Answers with the length of the body and its trailer `x-sum`, or with what went wrong.
async fn count(request: Request) -> Fallible {
    Ok(match request.into_body().collect().await {
        Ok(whole) => {
            let sum = whole.trailers().and_then(|trailers| trailers.get("x-sum")).cloned();
            let length = whole.to_bytes().len();
            let mut response = Response::new(Body::from(length.to_string()));
            if let Some(sum) = sum {
                response.headers_mut().insert("x-sum", sum);
            }
            response
        }
        Err(error) => Response::new(Body::from(format!("{error:?}"))),
    })
}

/// Posts a held body, writes `bytes` to it when it is opened, and ends it; the answer.
fn held(
    supervisor: &Supervisor,
    connection: &mut Connection,
    bytes: &[u8],
    end: BodyEnd,
) -> crate::supervisor::Response {
    let id = connection.post_held("/", None);
    let body = BodyRef::Request(id);
    connection.expect(&FromWorker::Open { body });
    let mut socket = supervisor.give(connection, body);
    socket.write_all(bytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    connection.send(&ToWorker::BodyEnd { body, end }, &[]);
    connection.response(id)
}

#[test]
fn a_held_body_is_opened_when_it_is_read() {
    let (supervisor, mut connection) = Supervisor::run(|request, _env, _ctx| count(request));
    let big = vec![7; 300_000];
    let whole = BodyEnd::Complete { bytes: 300_000, trailers: Vec::new() };
    assert_eq!(held(&supervisor, &mut connection, &big, whole).text(), "300000");
    let trailers = head::encode(&fields(&[("x-sum", "9")])).unwrap();
    let answer = held(&supervisor, &mut connection, b"four", BodyEnd::Complete { bytes: 4, trailers });
    assert_eq!((answer.text(), answer.headers["x-sum"].as_bytes()), ("4", &b"9"[..]));
}

#[test]
fn a_body_that_was_cut_short_is_an_error() {
    let (supervisor, mut connection) = Supervisor::run(|request, _env, _ctx| count(request));
    assert_eq!(held(&supervisor, &mut connection, b"half", BodyEnd::Aborted).text(), "Aborted");
    let longer = BodyEnd::Complete { bytes: 5, trailers: Vec::new() };
    assert_eq!(held(&supervisor, &mut connection, b"half", longer).text(), "Length { seen: 4, written: 5 }");
}

#[test]
fn the_end_of_a_body_may_come_before_its_bytes() {
    let (supervisor, mut connection) = Supervisor::run(|request, _env, _ctx| count(request));
    let id = connection.post_held("/", Some(3));
    let body = BodyRef::Request(id);
    connection.expect(&FromWorker::Open { body });
    connection
        .send(&ToWorker::BodyEnd { body, end: BodyEnd::Complete { bytes: 3, trailers: Vec::new() } }, &[]);
    let mut socket = supervisor.give(&connection, body);
    socket.write_all(b"abc").unwrap();
    drop(socket);
    assert_eq!(connection.response(id).text(), "3");
}

#[test]
fn a_held_body_that_is_dropped_is_discarded() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| async move {
        if request.uri().path() == "/some" {
            let _some = request.into_body().frame().await;
        }
        Response::new(Body::empty())
    });
    let id = connection.post_held("/none", Some(1 << 40));
    connection.expect(&FromWorker::Discard { body: BodyRef::Request(id) });
    connection.response(id);
    let id = connection.post_held("/some", Some(1 << 40));
    let body = BodyRef::Request(id);
    connection.expect(&FromWorker::Open { body });
    let mut socket = supervisor.give(&connection, body);
    socket.write_all(b"some").unwrap();
    connection.expect(&FromWorker::Discard { body });
    connection.response(id);
    // And its socket is closed.
    assert_eq!(socket.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_unread_body_is_passed_on() {
    let (_supervisor, mut connection) =
        Supervisor::run(|request: Request, _env, _ctx| async move { Response::new(request.into_body()) });
    let id = connection.post_held("/", None);
    let response = connection.response(id);
    assert_eq!(response.body, WorkerBody::Forward(BodyRef::Request(id)));
    assert!(!response.wait_until);
}

#[test]
fn a_framework_can_pass_an_unread_body_on() {
    let service = tower::service_fn(|request: Request| async move {
        let response = cloister::pass_on(Response::new(request.into_body()));
        // As axum does with every response.
        Ok::<_, Infallible>(response.map(axum::body::Body::new))
    });
    let (_supervisor, mut connection) =
        Supervisor::serve(move |control| cloister::serve_on(control, service));
    let id = connection.post_held("/", None);
    assert_eq!(connection.response(id).body, WorkerBody::Forward(BodyRef::Request(id)));
}

/// Reads a streamed answer to its end.
fn stream(
    supervisor: &Supervisor,
    connection: &mut Connection,
    path: &str,
) -> (Option<u64>, Vec<u8>, BodyEnd) {
    let id = connection.get(path);
    let WorkerBody::Stream { length } = connection.response(id).body else { panic!("not a stream") };
    let body = BodyRef::Response(id);
    let mut socket = supervisor.give(connection, body);
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    match connection.receive().0 {
        FromWorker::BodyEnd { body: ended, end } if ended == body => (length, bytes, end),
        other => panic!("expected the end of {body:?}, got {other:?}"),
    }
}

fn chunks(count: usize, fail: bool) -> Body {
    let stream = futures_util::stream::unfold(0, move |number| async move {
        tokio::task::yield_now().await;
        let frame = match number {
            number if number < count => Ok(Frame::data(Bytes::from(vec![b'c'; 1000]))),
            number if number == count && fail => Err("the source broke"),
            number if number == count => {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-sum", HeaderValue::from_static("9"));
                Ok(Frame::trailers(trailers))
            }
            _ => return None,
        };
        Some((frame, number + 1))
    });
    Body::new(StreamBody::new(Box::pin(stream)))
}

#[test]
fn long_and_open_ended_answers_are_streamed() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| async move {
        Response::new(match request.uri().path() {
            "/long" => Body::from(vec![1; 200_000]),
            "/open" => chunks(100, false),
            _ => chunks(3, true),
        })
    });
    let (length, bytes, end) = stream(&supervisor, &mut connection, "/long");
    assert_eq!((length, bytes.len()), (Some(200_000), 200_000));
    assert_eq!(end, BodyEnd::Complete { bytes: 200_000, trailers: Vec::new() });
    let (length, bytes, end) = stream(&supervisor, &mut connection, "/open");
    assert_eq!((length, bytes.len()), (None, 100_000));
    let trailers = head::encode(&fields(&[("x-sum", "9")])).unwrap();
    assert_eq!(end, BodyEnd::Complete { bytes: 100_000, trailers });
    let (_, bytes, end) = stream(&supervisor, &mut connection, "/fails");
    assert_eq!((bytes.len(), end), (3000, BodyEnd::Aborted));
}

#[test]
fn a_streamed_answer_ends_with_its_reader() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| async move {
        let silent = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        Response::new(if request.uri().path() == "/silent" {
            Body::new(silent)
        } else {
            chunks(1_000_000, false)
        })
    });
    for path in ["/endless", "/silent"] {
        // The reader closes its socket.
        let id = connection.get(path);
        let body = BodyRef::Response(id);
        connection.response(id);
        drop(supervisor.give(&connection, body));
        connection.expect(&FromWorker::BodyEnd { body, end: BodyEnd::Aborted });
        // Nobody waits for the answer any more.
        let id = connection.get(path);
        let body = BodyRef::Response(id);
        connection.response(id);
        let _socket = supervisor.give(&connection, body);
        connection.send(&ToWorker::Cancel { id }, &[]);
        connection.expect(&FromWorker::BodyEnd { body, end: BodyEnd::Aborted });
    }
}

#[test]
fn a_reader_that_writes_nothing_is_not_gone() {
    let (supervisor, mut connection) =
        Supervisor::run(|_request, _env, _ctx| async { Response::new(chunks(5, false)) });
    let id = connection.get("/");
    let body = BodyRef::Response(id);
    connection.response(id);
    let mut socket = supervisor.give(&connection, body);
    socket.shutdown(Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 5000);
}

#[test]
fn an_announced_length_is_kept_or_the_body_is_cut() {
    struct Lies;
    impl http_body::Body for Lies {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![0; 60_000])))))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(100_000)
        }
    }
    let (supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async { Response::new(Lies) });
    let (length, bytes, end) = stream(&supervisor, &mut connection, "/");
    assert_eq!((length, end), (Some(100_000), BodyEnd::Aborted));
    assert!(bytes.len() <= 100_000);
}

#[test]
fn a_body_streams_through_without_being_kept() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| async move {
        // Wrapped, so that its bytes come here.
        Response::new(Body::new(request.into_body().map_err(|error: BodyError| error)))
    });
    let id = connection.post_held("/", None);
    let (request, response) = (BodyRef::Request(id), BodyRef::Response(id));
    let mut from_worker = None;
    let mut to_worker = None;
    // It opens the one and streams the other, in either order.
    for _ in 0..2 {
        match connection.receive().0 {
            FromWorker::Open { body } if body == request => {
                to_worker = Some(supervisor.give(&connection, body))
            }
            FromWorker::Response { body: WorkerBody::Stream { length: None }, .. } => {
                from_worker = Some(supervisor.give(&connection, response));
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    let (mut to_worker, mut from_worker) = (to_worker.unwrap(), from_worker.unwrap());
    let mut back = vec![0; 10_000];
    for round in 0..100u8 {
        to_worker.write_all(&vec![round; 10_000]).unwrap();
        from_worker.read_exact(&mut back).unwrap();
        assert!(back.iter().all(|byte| *byte == round));
    }
    drop(to_worker);
    connection.send(
        &ToWorker::BodyEnd {
            body: request,
            end: BodyEnd::Complete { bytes: 1_000_000, trailers: Vec::new() },
        },
        &[],
    );
    connection.expect(&FromWorker::BodyEnd {
        body: response,
        end: BodyEnd::Complete { bytes: 1_000_000, trailers: Vec::new() },
    });
    assert_eq!(from_worker.read(&mut back).unwrap(), 0);
}

#[test]
fn an_inline_body_is_there_at_once() {
    let (_supervisor, mut connection) = Supervisor::run(|request, _env, _ctx| count(request));
    let head = request_head("POST", "http://a.example/", &HeaderMap::new());
    let id = connection.ask(head, HostBody::Inline, &[0; 65_536]);
    assert_eq!(connection.response(id).text(), "65536");
}
