//! Dispatch Workers and those they call.

use std::sync::Arc;
use std::time::Duration;

use cloister::{Body as WorkerBody, FetchError, Options, Request as WorkerRequest};
use cloister_supervisor::body::Body;
use cloister_supervisor::limits::Limits;
use cloister_supervisor::outcome::{Failure, Outcome};
use cloister_supervisor::pool::Options as PoolOptions;
use cloister_supervisor::registry::{Binding, Deployed};
use http::{Request, Response, StatusCode};
use tokio::task::JoinSet;

use crate::double::{Plane, account, customer, dispatcher, get, text, worker};

fn plane() -> Plane {
    let plane = Plane::with(PoolOptions { waiting: 10_000, ..PoolOptions::default() });
    let router = Deployed { concurrency: 10_000, ..dispatcher("router") };
    plane.sdk(router, |request: WorkerRequest, env, _| async move {
        let name = request.uri().host().unwrap().split('.').next().unwrap().to_owned();
        let tail = request.uri().path() == "/tail";
        let limits = cloister::Limits { subrequests: Some(1), ..cloister::Limits::default() };
        let worker = env.dispatcher("DISPATCHER")?.get(&name, Options { limits, ..Options::default() });
        if tail {
            return Ok(worker.tail(request)?);
        }
        match worker.fetch(request).await {
            Err(FetchError::NotFound) => {
                let mut response = Response::new(WorkerBody::from("no such customer"));
                *response.status_mut() = StatusCode::NOT_FOUND;
                Ok(response)
            }
            other => Ok(other?),
        }
    });
    plane.sdk(customer("echo"), |request: WorkerRequest, _, _| async move {
        Ok(Response::new(request.into_body()))
    });
    plane.sdk(customer("fails"), |_, _, _| async move { Err("on purpose".into()) });
    plane.sdk(customer("fetches"), |_, _, _| async move {
        let one = cloister::fetch(http::Request::get("http://a.test/").body(WorkerBody::empty())?).await;
        let two = cloister::fetch(http::Request::get("http://a.test/").body(WorkerBody::empty())?).await;
        let (denied, used_up) =
            (matches!(one, Err(FetchError::Denied(_))), matches!(two, Err(FetchError::Subrequests)));
        Ok(Response::new(WorkerBody::from(format!("{denied} {used_up}"))))
    });
    plane
}

#[tokio::test]
async fn bodies_go_through_a_dispatch_worker() {
    let plane = plane();
    for path in ["", "tail"] {
        for size in [10usize, 1 << 20] {
            let request = Request::post(format!("http://echo.test/{path}"));
            let request = request.body(Body::full(vec![b'x'; size])).unwrap();
            let response = plane.ask("router", request).await.unwrap();
            assert_eq!(text(response).await.len(), size, "{path:?}");
        }
    }
    let records = plane.invocations(&customer("echo").id);
    assert_eq!(records.len(), 4);
    assert!(records.iter().all(|record| record.depth == 1 && record.via == Some(account("router"))));
}

#[tokio::test]
async fn a_missing_customer_is_the_routers_to_answer_or_404() {
    let plane = plane();
    let response = plane.ask("router", get("http://nobody.test/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    let refusal = plane.ask("router", get("http://nobody.test/tail")).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::ScriptNotFound);
}

#[tokio::test]
async fn a_failure_nobody_handles_keeps_its_code() {
    let plane = plane();
    for path in ["", "tail"] {
        let refusal = plane.ask("router", get(&format!("http://fails.test/{path}"))).await.unwrap_err();
        assert_eq!(refusal.failure, Failure::Exception);
    }
    let records = plane.invocations(&customer("fails").id);
    assert!(records.iter().all(|record| record.outcome == Outcome::Exception));
    assert!(records[0].reason.as_deref().unwrap().contains("on purpose"));
}

#[tokio::test]
async fn the_dispatch_calls_subrequest_limit_counts() {
    let plane = plane();
    let response = plane.ask("router", get("http://fetches.test/")).await.unwrap();
    assert_eq!(text(response).await, "true true");
}

/// A customer's Worker that does not answer has the dispatch Worker wait for some calls at most, and others go on.
#[tokio::test]
async fn a_worker_that_never_answers_does_not_stop_the_dispatch_worker() {
    const CLIENTS: usize = 1500;
    let plane = Arc::new(plane());
    let silent = Deployed { concurrency: 10_000, ..customer("silent") };
    plane.sdk(silent, |_, _, _| std::future::pending());
    let mut clients: JoinSet<_> =
        (0..CLIENTS)
            .map(|_| {
                let plane = plane.clone();
                async move {
                    plane.ask("router", get("http://silent.test/")).await.map(|response| response.status())
                }
            })
            .collect();
    let mut shed = 0;
    while shed < CLIENTS - 1024 {
        let refused = clients.join_next().await.unwrap().unwrap();
        assert_eq!(refused.unwrap_err().failure, Failure::LoadShed);
        shed += 1;
    }
    let request = Request::post("http://echo.test/").body(Body::full("hello")).unwrap();
    assert_eq!(text(plane.ask("router", request).await.unwrap()).await, "hello");
    // Who gives up gives the places back.
    clients.shutdown().await;
    let mut again = tokio::spawn({
        let plane = plane.clone();
        async move { plane.ask("router", get("http://silent.test/")).await.map(|response| response.status()) }
    });
    let waits = tokio::time::timeout(Duration::from_millis(300), &mut again).await;
    assert!(waits.is_err(), "{waits:?}");
    again.abort();
}

#[tokio::test]
async fn a_loop_ends() {
    let plane = Plane::new();
    let binding = Binding::Service { service: "loop".into() };
    let deployed =
        Deployed { bindings: [("SELF".to_owned(), binding)].into_iter().collect(), ..worker("loop") };
    plane.sdk(deployed, |request: WorkerRequest, env, _| async move {
        Ok(env.service("SELF")?.fetch(request).await?)
    });
    let refusal = plane.ask("loop", get("http://a/")).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::Loop);
}

#[tokio::test]
async fn the_lowest_body_limit_wins() {
    let plane = plane();
    let limits = Limits { request_body_bytes: Some(1000), ..Limits::default() };
    let request = Request::post("http://echo.test/").body(Body::full(vec![0; 1001])).unwrap();
    let refusal = plane.ask_within("router", request, limits).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::BodyTooLarge);
}

/// Wherever it comes from: its answer would be a connection.
#[tokio::test]
async fn no_worker_is_asked_with_connect() {
    let plane = plane();
    let request = Request::connect("http://echo.test/").body(Body::empty()).unwrap();
    let refusal = plane.ask("router", request).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::Internal);
    let records = plane.invocations(&account("router"));
    assert!(records[0].reason.as_deref().unwrap().contains("CONNECT"));
}
