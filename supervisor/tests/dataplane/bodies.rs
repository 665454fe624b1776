//! Bodies of every size, in both directions.

use cloister::{Body as WorkerBody, Request as WorkerRequest};
use cloister_supervisor::body::{Body, BodyError};
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::double::{Plane, account, get, text, worker};

#[tokio::test]
async fn small_answers_come_and_are_recorded() {
    let plane = Plane::new();
    plane.sdk(worker("hello"), |request: WorkerRequest, _, ctx| async move {
        assert_eq!(ctx.ray(), "ray");
        Ok(Response::new(WorkerBody::from(format!("hello {}", request.uri().path()))))
    });
    for _ in 0..3 {
        let response = plane.ask("hello", get("http://a/x")).await.unwrap();
        assert!(response.headers().contains_key("server-timing"));
        assert_eq!(text(response).await, "hello /x");
    }
    let records = plane.invocations(&account("hello"));
    assert_eq!(records.len(), 3);
    assert!(records[0].cold && !records[1].cold);
    assert_eq!(records[2].response_bytes, 8);
    assert_eq!(records[2].status, Some(200));
}

fn echo(plane: &Plane) {
    plane.sdk(worker("echo"), |request: WorkerRequest, _, _| async move {
        Ok(Response::new(request.into_body()))
    });
    plane.sdk(worker("reader"), |request: WorkerRequest, _, _| async move {
        let bytes = request.into_body().bytes(64 << 20).await?;
        Ok(Response::new(WorkerBody::from(bytes)))
    });
}

#[tokio::test]
async fn every_size_comes_back_whole() {
    let plane = Plane::new();
    echo(&plane);
    for name in ["echo", "reader"] {
        for size in [0usize, 1, 65_535, 65_536, 65_537, 3 << 20] {
            let sent: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let request = Request::post("http://a/").body(Body::full(sent.clone())).unwrap();
            let response = plane.ask(name, request).await.unwrap();
            let got = response.into_body().collect().await.unwrap().to_bytes();
            assert!(got == sent, "{name}: {size} bytes");
        }
    }
}

#[tokio::test]
async fn a_request_body_of_unknown_length_streams() {
    let plane = Plane::new();
    echo(&plane);
    for name in ["echo", "reader"] {
        let chunks = futures_util::stream::iter(
            (0..100u8).map(|at| Ok::<_, BodyError>(Frame::data(bytes::Bytes::from(vec![at; 5000])))),
        );
        let request = Request::post("http://a/").body(Body::boxed(StreamBody::new(chunks))).unwrap();
        let response = plane.ask(name, request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 500_000);
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_never_looks_whole() {
    let plane = Plane::new();
    echo(&plane);
    let chunks =
        futures_util::stream::iter([Ok(Frame::data(bytes::Bytes::from("begin"))), Err(BodyError::Aborted)]);
    let request = Request::post("http://a/").body(Body::boxed(StreamBody::new(chunks))).unwrap();
    assert!(plane.ask("reader", request).await.is_err());
}

#[tokio::test]
async fn a_streamed_answer_arrives_as_it_is_written_and_may_break_off() {
    let plane = Plane::new();
    plane.sdk(worker("stream"), |request: WorkerRequest, _, _| async move {
        let broken = request.uri().path() == "/broken";
        let chunks = futures_util::stream::iter(0..10).then(move |at| async move {
            // Not all at once: a body that is ready at once need not be streamed.
            tokio::task::yield_now().await;
            if broken && at == 5 {
                return Err(std::io::Error::other("broken"));
            }
            Ok(Frame::data(bytes::Bytes::from(vec![b'x'; 1000])))
        });
        Ok(Response::new(WorkerBody::new(StreamBody::new(Box::pin(chunks)))))
    });
    let response = plane.ask("stream", get("http://a/whole")).await.unwrap();
    assert_eq!(text(response).await.len(), 10_000);
    let response = plane.ask("stream", get("http://a/broken")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    // The process lives on.
    let response = plane.ask("stream", get("http://a/whole")).await.unwrap();
    assert_eq!(text(response).await.len(), 10_000);
    assert_eq!(plane.starter.starts.load(std::sync::atomic::Ordering::Relaxed), 1);
}
