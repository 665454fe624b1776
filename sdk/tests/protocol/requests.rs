//! Requests, answers, bindings, exceptions, cancellation, `wait_until`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::Query;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use cloister::{BindingError, Body, Context, Env, Request, Response};
use cloister_ipc::worker::{FromWorker, HostBody, ToWorker, WorkerBody};
use http::HeaderMap;
use tokio::sync::Notify;

use crate::supervisor::{Fallible, Supervisor, fields, request_head};

#[test]
fn a_closure_answers_with_status_headers_and_body() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, ctx: Context| async move {
        assert_eq!(request.headers()["x-a"], "b");
        assert_eq!(ctx.ray(), "ray-1");
        assert_eq!(ctx.client_ip().unwrap().to_string(), "203.0.113.7");
        assert_eq!((ctx.namespace(), ctx.worker(), ctx.version()), ("production", "customer-a", "v1"));
        let answer = format!("{} {}", request.method(), request.uri());
        http::Response::builder().status(418).header("x-c", "d").body(Body::from(answer)).unwrap()
    });
    let head = request_head("GET", "http://a.example/p?q=1", &fields(&[("x-a", "b")]));
    let id = connection.ask(head, HostBody::Empty, &[]);
    let response = connection.response(id);
    assert_eq!(response.status, 418);
    assert_eq!(response.headers["x-c"], "d");
    assert_eq!(response.body, WorkerBody::Inline);
    assert!(!response.wait_until);
    assert_eq!(response.text(), "GET http://a.example/p?q=1");
    supervisor.leave().unwrap();
}

#[test]
fn many_requests_in_one_read_and_half_frames() {
    let (_supervisor, mut connection) =
        Supervisor::run(|request: Request, _env, _ctx| async move { Response::new(request.into_body()) });
    let mut bytes = Vec::new();
    for number in 0..100u64 {
        let head = request_head("POST", "http://a.example/", &HeaderMap::new());
        let (_, message) = connection.next(head, HostBody::Inline);
        cloister_ipc::frame::append(&message, &number.to_le_bytes(), &mut bytes).unwrap();
    }
    // All at once but for the last frame, which comes byte by byte.
    let (most, last) = bytes.split_at(bytes.len() - 100);
    std::io::Write::write_all(&mut connection.stream, most).unwrap();
    for number in 0..99u64 {
        assert_eq!(connection.response(number + 1).inline, Bytes::copy_from_slice(&number.to_le_bytes()));
    }
    for byte in last {
        std::io::Write::write_all(&mut connection.stream, &[*byte]).unwrap();
    }
    assert_eq!(connection.response(100).inline, Bytes::copy_from_slice(&99u64.to_le_bytes()));
}

#[test]
fn bindings_are_typed() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, env: Env, _ctx| async move {
        assert_eq!(env.var("GREETING").unwrap(), "hello");
        assert_eq!(env.secret("KEY").unwrap(), "s3cret");
        assert_eq!(env.json::<serde_json::Value>("PLANS").unwrap()["free"], 5);
        assert!(matches!(env.json::<Vec<u8>>("PLANS"), Err(BindingError::Json { .. })));
        assert!(matches!(env.var("KEY"), Err(BindingError::Kind { is: "secret_text", .. })));
        assert!(matches!(env.var("NONE"), Err(BindingError::Missing(_))));
        assert!(env.dispatcher("DISPATCHER").is_ok() && env.service("BILLING").is_ok());
        assert!(env.dispatcher("BILLING").is_err());
        assert!(!format!("{env:?}").contains("s3cret"));
        Response::new(Body::empty())
    });
    let id = connection.get("/");
    assert_eq!(connection.response(id).body, WorkerBody::Empty);
}

#[test]
fn an_axum_router_is_a_worker() {
    #[derive(serde::Deserialize)]
    struct Name {
        name: String,
    }
    async fn greet(
        Extension(env): Extension<Env>,
        Extension(ctx): Extension<Context>,
        Query(query): Query<Name>,
    ) -> String {
        format!("{} {} from {}", env.var("GREETING").unwrap(), query.name, ctx.worker())
    }
    async fn sum(Json(numbers): Json<Vec<i64>>) -> Json<i64> {
        Json(numbers.iter().sum())
    }
    let router = Router::new().route("/greet", get(greet)).route("/sum", post(sum));
    let (_supervisor, mut connection) = Supervisor::serve(move |control| cloister::serve_on(control, router));
    let id = connection.get("/greet?name=you");
    assert_eq!(connection.response(id).text(), "hello you from customer-a");
    let json = fields(&[("content-type", "application/json")]);
    let id =
        connection.ask(request_head("POST", "http://a.example/sum", &json), HostBody::Inline, b"[1,2,39]");
    let response = connection.response(id);
    assert_eq!((response.status, response.text()), (200, "42"));
    let id = connection.get("/none");
    assert_eq!(connection.response(id).status, 404);
}

#[test]
fn panics_and_errors_are_exceptions_and_the_worker_goes_on() {
    let (_supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| {
        assert_ne!(request.uri().path(), "/at-once", "before its future");
        async move {
            match request.uri().path() {
                "/panic" => panic!("no {}", "luck"),
                "/later" => {
                    tokio::task::yield_now().await;
                    panic!("later")
                }
                "/error" => Err("not today".into()),
                "/long" => Err("ä".repeat(4000).into()),
                _ => Fallible::Ok(Response::new(Body::from("fine"))),
            }
        }
    });
    for (path, text) in
        [("/panic", "panicked: no luck"), ("/later", "panicked: later"), ("/error", "not today")]
    {
        let id = connection.get(path);
        assert_eq!(connection.exception(id), text);
    }
    let id = connection.get("/at-once");
    assert!(connection.exception(id).contains("before its future"));
    let id = connection.get("/long");
    assert_eq!(connection.exception(id).len(), 4096);
    let id = connection.get("/");
    assert_eq!(connection.response(id).text(), "fine");
}

#[test]
fn an_answer_that_is_too_long_is_an_exception() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async {
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert("x-long", "v".repeat(60_000).parse().unwrap());
        response
    });
    let id = connection.get("/");
    assert!(connection.exception(id).starts_with("the response's head: header block of"));
}

/// Counts drops.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn cancel_drops_the_handler_and_lets_other_work_go_on() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let release = Arc::new(Notify::new());
    let (counter, gate) = (dropped.clone(), release.clone());
    let (_supervisor, mut connection) = Supervisor::run(move |request: Request, _env, ctx: Context| {
        let (guard, gate) = (Dropped(counter.clone()), gate.clone());
        async move {
            match request.uri().path() {
                "/forever" => {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                }
                "/with-work" => {
                    ctx.wait_until(async move { gate.notified().await });
                    std::future::pending::<()>().await;
                }
                _ => {}
            }
            Response::new(Body::empty())
        }
    });
    let id = connection.get("/forever");
    connection.send(&ToWorker::Cancel { id }, &[]);
    connection.expect(&FromWorker::Done { id });
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    // Its `wait_until` work outlives the handler.
    let id = connection.get("/with-work");
    connection.send(&ToWorker::Cancel { id }, &[]);
    let other = connection.get("/");
    connection.response(other);
    release.notify_one();
    connection.expect(&FromWorker::Done { id });
    // Work is dropped by a second cancel.
    let id = connection.get("/with-work");
    connection.send(&ToWorker::Cancel { id }, &[]);
    connection.send(&ToWorker::Cancel { id }, &[]);
    connection.expect(&FromWorker::Done { id });
    // One that is over, or never was, changes nothing.
    connection.send(&ToWorker::Cancel { id }, &[]);
    connection.send(&ToWorker::Cancel { id: 999 }, &[]);
    let other = connection.get("/");
    connection.response(other);
}

#[test]
fn wait_until_goes_on_after_the_answer() {
    let release = Arc::new(Notify::new());
    let gate = release.clone();
    let (_supervisor, mut connection) = Supervisor::run(move |request: Request, _env, ctx: Context| {
        let gate = gate.clone();
        async move {
            match request.uri().path() {
                "/panics" => ctx.wait_until(async { panic!("in the background") }),
                _ => {
                    let inner = ctx.clone();
                    // Work may add work.
                    ctx.wait_until(async move {
                        gate.notified().await;
                        inner.wait_until(async { tokio::task::yield_now().await });
                    });
                }
            }
            Response::new(Body::from("answered"))
        }
    });
    let id = connection.get("/");
    assert!(connection.response(id).wait_until);
    release.notify_one();
    connection.expect(&FromWorker::Done { id });
    let id = connection.get("/panics");
    assert!(connection.response(id).wait_until);
    connection.expect(&FromWorker::Done { id });
}

#[test]
fn a_head_that_is_not_http_is_an_exception() {
    let (_supervisor, mut connection) =
        Supervisor::run(|_request, _env, _ctx| async { Response::new(Body::empty()) });
    let id =
        connection.ask(request_head("G T", "http://a.example/", &HeaderMap::new()), HostBody::Empty, &[]);
    assert!(connection.exception(id).starts_with("the request's head"));
}
