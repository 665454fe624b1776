//! Outgoing requests, dispatches and services.

use std::io::Read;

use bytes::Bytes;
use cloister::{Body, BoxError, Context, Env, FetchError, Limits, Options, Request, Response};
use cloister_ipc::worker::{
    self, BodyEnd, BodyRef, FromWorker, HostBody, RequestHead, Target, ToWorker, WorkerBody,
};
use http::HeaderMap;
use http_body_util::BodyExt;

use crate::supervisor::{Connection, Fallible, Supervisor, fields, request_head, response_head};

fn get(uri: &str) -> Request {
    http::Request::get(uri).body(Body::empty()).unwrap()
}

/// The next message, which must be a fetch with the number `fetch` for `request`.
fn fetched(
    connection: &mut Connection,
    fetch: u64,
    request: u64,
) -> (Target, RequestHead, WorkerBody, Bytes) {
    match connection.receive() {
        (FromWorker::Fetch { fetch: number, request: whose, target, head, body }, inline) => {
            assert_eq!((number, whose), (fetch, request));
            (target, head, body, inline)
        }
        (other, _) => panic!("expected fetch {fetch}, got {other:?}"),
    }
}

#[test]
fn a_fetch_goes_out_and_comes_back() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async {
        let request =
            http::Request::post("https://api.example/v1").header("x-a", "b").body(Body::from("ask"))?;
        let response = cloister::fetch(request).await?;
        let status = response.status();
        let text = response.into_body().bytes(100).await?;
        Fallible::Ok(Response::new(Body::from(format!("{status} {}", String::from_utf8_lossy(&text)))))
    });
    let id = connection.get("/");
    let (target, head, body, inline) = fetched(&mut connection, 1, id);
    assert_eq!((target, body, &inline[..]), (Target::Egress, WorkerBody::Inline, &b"ask"[..]));
    assert_eq!((head.method.as_str(), head.uri.as_str()), ("POST", "https://api.example/v1"));
    assert_eq!(cloister_ipc::head::decode(head.headers).unwrap()["x-a"], "b");
    let head = response_head(201, &HeaderMap::new());
    connection.send(&ToWorker::Response { fetch: 1, head, body: HostBody::Inline }, b"answer");
    assert_eq!(connection.response(id).text(), "201 Created answer");
}

#[test]
fn failures_are_typed() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async {
        let error = cloister::fetch(get("http://b.example/")).await.unwrap_err();
        assert_eq!(error.is_not_found(), matches!(error, FetchError::NotFound));
        Response::new(Body::from(format!("{error:?}")))
    });
    let cases = [
        (worker::FetchError::NotFound, "NotFound"),
        (worker::FetchError::Denied("rule".to_owned()), "Denied(\"rule\")"),
        (worker::FetchError::Subrequests, "Subrequests"),
        (worker::FetchError::Network("gone".to_owned()), "Network(\"gone\")"),
        (
            worker::FetchError::Worker { code: 1102, message: "cpu".to_owned() },
            "Worker { code: 1102, message: \"cpu\" }",
        ),
    ];
    for (fetch, (error, text)) in (1..).zip(cases) {
        let id = connection.get("/");
        fetched(&mut connection, fetch, id);
        connection.send(&ToWorker::FetchFailed { fetch, error }, &[]);
        assert_eq!(connection.response(id).text(), text);
    }
}

#[test]
fn what_can_not_be_asked_is_refused_here() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, ctx: Context| async move {
        assert!(matches!(cloister::fetch(get("/relative")).await, Err(FetchError::Invalid(_))));
        let tunnel = http::Request::connect("http://b.example/").body(Body::empty()).unwrap();
        assert!(matches!(cloister::fetch(tunnel).await, Err(FetchError::Invalid(_))));
        let long = format!("http://b.example/{}", "p".repeat(9000));
        assert!(matches!(cloister::fetch(get(&long)).await, Err(FetchError::Invalid(_))));
        let spawned = tokio::spawn(async { cloister::fetch(get("http://b.example/")).await });
        assert!(matches!(spawned.await, Ok(Err(FetchError::NoRequest))));
        // In a spawned task there is the context.
        let spawned = tokio::spawn(async move { ctx.fetch(get("http://b.example/")).await });
        let status = spawned.await.unwrap().unwrap().status().as_u16();
        http::Response::builder().status(status).body(Body::empty()).unwrap()
    });
    let id = connection.get("/");
    fetched(&mut connection, 1, id);
    let head = response_head(204, &HeaderMap::new());
    connection.send(&ToWorker::Response { fetch: 1, head, body: HostBody::Empty }, &[]);
    assert_eq!(connection.response(id).status, 204);
}

#[test]
fn a_dispatch_carries_its_options_and_passes_both_bodies_unread() {
    let (_supervisor, mut connection) = Supervisor::run(|request: Request, env: Env, _ctx| async move {
        let options = Options {
            limits: Limits { cpu_ms: Some(50), subrequests: Some(5), wall_ms: None },
            args: Some(serde_json::json!({"plan": "free"})),
            outbound: [("customer".to_owned(), serde_json::json!("a"))].into(),
        };
        let mut response = env.dispatcher("DISPATCHER")?.get("customer-a", options).fetch(request).await?;
        response.headers_mut().insert("x-seen", "1".parse()?);
        Fallible::Ok(response)
    });
    let id = connection.post_held("/up", Some(1 << 30));
    let (target, head, body, _) = fetched(&mut connection, 1, id);
    let Target::Dispatch { binding, worker, options } = target else { panic!("{target:?}") };
    assert_eq!((binding.as_str(), worker.as_str()), ("DISPATCHER", "customer-a"));
    assert_eq!((options.cpu_ms, options.subrequests, options.wall_ms), (Some(50), Some(5), None));
    assert_eq!(options.args, r#"{"plan":"free"}"#);
    assert_eq!(options.outbound, [("customer".to_owned(), "\"a\"".to_owned())]);
    assert_eq!(head.uri, "http://a.example/up");
    assert_eq!(body, WorkerBody::Forward(BodyRef::Request(id)));
    let head = response_head(200, &fields(&[("x-from", "a")]));
    connection.send(&ToWorker::Response { fetch: 1, head, body: HostBody::Held { length: None } }, &[]);
    let response = connection.response(id);
    assert_eq!(response.body, WorkerBody::Forward(BodyRef::FetchResponse(1)));
    assert_eq!(
        (&response.headers["x-seen"], &response.headers["x-from"]),
        (&"1".parse().unwrap(), &"a".parse().unwrap())
    );
}

#[test]
fn a_tail_dispatch_hands_the_request_off() {
    let (_supervisor, mut connection) = Supervisor::run(|request: Request, env: Env, _ctx| async move {
        let changed = request.uri().path() == "/changed";
        let long = request.uri().path() == "/long";
        let billing = env.service("BILLING")?;
        if long {
            let error = billing.tail(get("http://b.example/").map(|_| Body::from(vec![0; 100_000])));
            assert!(matches!(error, Err(FetchError::Invalid(_))));
        }
        let mut response = billing.tail(request)?;
        if changed {
            response.headers_mut().insert("x-lost", "1".parse()?);
        }
        Fallible::Ok(response)
    });
    for path in ["/", "/long"] {
        let id = connection.post_held(path, None);
        let (message, _) = connection.receive();
        let FromWorker::Handoff { id: number, target, head, body, wait_until } = message else {
            panic!("{message:?}")
        };
        assert_eq!((number, wait_until), (id, false));
        assert_eq!(target, Target::Service { binding: "BILLING".to_owned() });
        assert_eq!((head, body), (None, WorkerBody::Forward(BodyRef::Request(id))));
    }
    let id = connection.get("/changed");
    assert!(connection.exception(id).contains("tail()"));
}

#[test]
fn a_tail_dispatch_says_what_it_changed() {
    let (_supervisor, mut connection) = Supervisor::run(|mut request: Request, env: Env, _ctx| async move {
        match request.uri().path() {
            "/method" => *request.method_mut() = http::Method::PUT,
            "/uri" => *request.uri_mut() = "http://worker.example/other".parse()?,
            "/more" => drop(request.headers_mut().insert("x-plan", "free".parse()?)),
            "/less" => drop(request.headers_mut().remove("x-plan")),
            "/other" => drop(request.headers_mut().insert("x-plan", "paid".parse()?)),
            _ => {}
        }
        Fallible::Ok(env.service("BILLING")?.tail(request)?)
    });
    let plan = |text: &'static str| Some(fields(&[("x-plan", text)]));
    for (path, given, changed) in [
        ("/as-it-is", plan("free"), None),
        ("/method", plan("free"), Some(("PUT", "/method", plan("free")))),
        ("/uri", plan("free"), Some(("GET", "/other", plan("free")))),
        ("/more", None, Some(("GET", "/more", plan("free")))),
        ("/less", plan("free"), Some(("GET", "/less", None))),
        ("/other", plan("free"), Some(("GET", "/other", plan("paid")))),
    ] {
        let asked = request_head("GET", &format!("http://worker.example{path}"), &given.unwrap_or_default());
        connection.ask(asked, HostBody::Empty, &[]);
        let FromWorker::Handoff { head, .. } = connection.receive().0 else { panic!("{path}") };
        let changed = changed.map(|(method, path, fields)| {
            request_head(method, &format!("http://worker.example{path}"), &fields.unwrap_or_default())
        });
        assert_eq!(head, changed, "{path}");
    }
}

#[test]
fn held_responses_are_read_or_discarded() {
    let (supervisor, mut connection) = Supervisor::run(|request: Request, _env, _ctx| async move {
        let response = cloister::fetch(get("http://b.example/")).await?;
        if request.uri().path() == "/read" {
            let text = response.into_body().collect().await?.to_bytes();
            return Ok::<_, BoxError>(Response::new(Body::from(text)));
        }
        Ok(Response::new(Body::empty()))
    });
    let head = response_head(200, &HeaderMap::new());
    let held = HostBody::Held { length: Some(4) };
    let id = connection.get("/read");
    fetched(&mut connection, 1, id);
    connection.send(&ToWorker::Response { fetch: 1, head: head.clone(), body: held }, &[]);
    let body = BodyRef::FetchResponse(1);
    connection.expect(&FromWorker::Open { body });
    std::io::Write::write_all(&mut supervisor.give(&connection, body), b"body").unwrap();
    connection
        .send(&ToWorker::BodyEnd { body, end: BodyEnd::Complete { bytes: 4, trailers: Vec::new() } }, &[]);
    assert_eq!(connection.response(id).text(), "body");

    let id = connection.get("/drop");
    fetched(&mut connection, 2, id);
    connection.send(&ToWorker::Response { fetch: 2, head, body: held }, &[]);
    connection.expect(&FromWorker::Discard { body: BodyRef::FetchResponse(2) });
    connection.response(id);
}

#[test]
fn a_long_request_body_is_streamed_out() {
    let (supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async {
        let request = http::Request::post("http://b.example/").body(Body::from(vec![1; 100_000]))?;
        let response = cloister::fetch(request).await?;
        Fallible::Ok(Response::new(response.into_body()))
    });
    let id = connection.get("/");
    let (_, _, body, _) = fetched(&mut connection, 1, id);
    assert_eq!(body, WorkerBody::Stream { length: Some(100_000) });
    let name = BodyRef::FetchRequest(1);
    let mut bytes = Vec::new();
    supervisor.give(&connection, name).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 100_000);
    connection.expect(&FromWorker::BodyEnd {
        body: name,
        end: BodyEnd::Complete { bytes: 100_000, trailers: Vec::new() },
    });
    let head = response_head(200, &HeaderMap::new());
    connection.send(&ToWorker::Response { fetch: 1, head, body: HostBody::Inline }, b"thanks");
    assert_eq!(connection.response(id).text(), "thanks");
}

#[test]
fn dropping_a_fetch_cancels_it() {
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async {
        let fetch = cloister::fetch(get("http://b.example/"));
        tokio::select! {
            biased;
            _ = fetch => panic!("answered"),
            () = tokio::task::yield_now() => {}
        }
        Response::new(Body::empty())
    });
    let id = connection.get("/");
    fetched(&mut connection, 1, id);
    connection.expect(&FromWorker::CancelFetch { fetch: 1 });
    connection.response(id);
    // An answer that crosses is dropped.
    let head = response_head(200, &HeaderMap::new());
    connection.send(&ToWorker::Response { fetch: 1, head, body: HostBody::Empty }, &[]);
    let id = connection.get("/");
    fetched(&mut connection, 2, id);
}

#[test]
fn fetches_wait_when_too_many_are_open() {
    const LIMIT: u64 = cloister_ipc::limits::FETCHES_IN_FLIGHT as u64;
    const ALL: u64 = LIMIT + 44;
    let (_supervisor, mut connection) = Supervisor::run(|_request, _env, _ctx| async {
        let fetches = (0..ALL).map(|_| cloister::fetch(get("http://b.example/")));
        let done = futures_util::future::join_all(fetches).await;
        Response::new(Body::from(done.iter().filter(|result| result.is_ok()).count().to_string()))
    });
    let id = connection.get("/");
    for fetch in 1..=LIMIT {
        fetched(&mut connection, fetch, id);
    }
    let head = response_head(200, &HeaderMap::new());
    for fetch in 1..=ALL {
        // Each answer makes room for one more.
        connection.send(&ToWorker::Response { fetch, head: head.clone(), body: HostBody::Empty }, &[]);
        if fetch + LIMIT <= ALL {
            fetched(&mut connection, fetch + LIMIT, id);
        }
    }
    assert_eq!(connection.response(id).text(), ALL.to_string());
}

#[test]
fn a_fetch_ends_with_its_request() {
    let (report, reported) = std::sync::mpsc::channel();
    let (_supervisor, mut connection) = Supervisor::run(move |_request, _env, ctx: Context| {
        let report = report.clone();
        async move {
            let (tell, told) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let fetch = ctx.fetch(get("http://b.example/"));
                let (result, ()) = tokio::join!(fetch, async { tell.send(()).unwrap() });
                report.send(format!("{result:?}")).unwrap();
                // And so does any that is asked later.
                report.send(format!("{:?}", ctx.fetch(get("http://b.example/")).await)).unwrap();
            });
            told.await.unwrap();
            Response::new(Body::empty())
        }
    });
    let id = connection.get("/");
    fetched(&mut connection, 1, id);
    assert!(!connection.response(id).wait_until);
    assert!(reported.recv().unwrap().contains("Over"));
    assert!(reported.recv().unwrap().contains("Over"));
    // The platform dropped it with its request: nothing is said of it.
    let id = connection.get("/");
    fetched(&mut connection, 3, id);
}
