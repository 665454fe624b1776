//! Limits, crashes, clients that go away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cloister::{Body as WorkerBody, Request as WorkerRequest};
use cloister_supervisor::body::{Body, BodyError};
use cloister_supervisor::limits::Limits;
use cloister_supervisor::outcome::{Failure, Outcome};
use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use crate::double::{Plane, Program, account, get, text, worker};

/// Spins on `/spin` until its process is killed; hangs on `/hang`.
fn tricky(plane: &Plane) {
    let program: Program = Arc::new(|control, life| {
        Box::pin(async move {
            let _ = cloister::run_on(control, move |request: WorkerRequest, _, _| {
                let life = life.clone();
                async move {
                    match request.uri().path() {
                        "/spin" => while !life.flag.load(Ordering::Relaxed) {},
                        "/hang" => std::future::pending().await,
                        _ => {}
                    }
                    Response::new(WorkerBody::from("fine"))
                }
            })
            .await;
        })
    });
    plane.deploy(worker("tricky"), program);
}

#[tokio::test]
async fn over_the_cpu_limit_the_process_is_killed_and_the_next_request_gets_another() {
    let plane = Plane::new();
    tricky(&plane);
    let limits = Limits { cpu_ms: Some(20), ..Limits::default() };
    let refusal = plane.ask_within("tricky", get("http://a/spin"), limits).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::ExceededResources);
    let response = plane.ask_within("tricky", get("http://a/"), limits).await.unwrap();
    assert_eq!(text(response).await, "fine");
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 2);
    let records = plane.invocations(&account("tricky"));
    assert_eq!(records[0].outcome, Outcome::ExceededCpu);
    assert!(records[0].cpu_us >= 20_000, "{}", records[0].cpu_us);
    assert!(records[1].cpu_us < 20_000, "{}", records[1].cpu_us);
}

#[tokio::test]
async fn over_the_wall_limit() {
    let plane = Plane::new();
    tricky(&plane);
    let limits = Limits { wall_ms: Some(30), ..Limits::default() };
    let refusal = plane.ask_within("tricky", get("http://a/hang"), limits).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::ExceededWallTime);
    assert_eq!(plane.invocations(&account("tricky"))[0].outcome, Outcome::ExceededWallTime);
}

#[tokio::test]
async fn a_sender_that_hangs_costs_its_request_and_not_the_process() {
    let plane = Plane::new();
    plane.sdk(worker("w"), |request: WorkerRequest, _, _| async move {
        let bytes = request.into_body().collect().await?.to_bytes();
        Ok(Response::new(WorkerBody::from(bytes)))
    });
    let limits = Limits { wall_ms: Some(100), ..Limits::default() };
    let pending = futures_util::stream::pending::<Result<Frame<bytes::Bytes>, BodyError>>();
    let begun = futures_util::stream::iter([Ok(Frame::data(bytes::Bytes::from("begin")))]);
    let body = Body::boxed(StreamBody::new(begun.chain(pending)));
    let request = Request::post("http://a/").body(body).unwrap();
    let refusal = plane.ask_within("w", request, limits).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::ExceededWallTime);
    assert!(plane.ask("w", get("http://a/")).await.is_ok());
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_reader_that_is_slow_costs_its_answer_and_not_the_process() {
    let plane = Plane::new();
    plane.sdk(worker("w"), |request: WorkerRequest, _, _| async move {
        let parts = if request.uri().path() == "/long" { 1 << 12 } else { 1 };
        let part = bytes::Bytes::from_static(&[b'x'; 1 << 12]);
        let parts = (0..parts).map(move |_| Ok::<_, std::io::Error>(Frame::data(part.clone())));
        Ok(Response::new(WorkerBody::new(StreamBody::new(futures_util::stream::iter(parts)))))
    });
    let limits = Limits { wall_ms: Some(1000), ..Limits::default() };
    let mut slow = plane.ask_within("w", get("http://a/long"), limits).await.unwrap().into_body();
    assert!(slow.frame().await.unwrap().is_ok());
    // Time is what this is about: the limit passes, and is seen, while nothing is read.
    tokio::time::sleep(Duration::from_secs(2)).await;
    while let Some(frame) = slow.frame().await {
        if frame.is_err() {
            break;
        }
    }
    assert_eq!(plane.invocations(&account("w"))[0].outcome, Outcome::ExceededWallTime);
    assert!(plane.ask("w", get("http://a/")).await.is_ok());
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn others_in_a_killed_process_fail_as_exceptions() {
    let plane = Plane::new();
    tricky(&plane);
    let hang = plane.ask("tricky", get("http://a/hang"));
    let limits = Limits { wall_ms: Some(50), ..Limits::default() };
    let doomed = plane.ask_within("tricky", get("http://a/hang"), limits);
    let (hang, doomed) = tokio::join!(hang, doomed);
    assert_eq!(hang.unwrap_err().failure, Failure::Exception);
    assert_eq!(doomed.unwrap_err().failure, Failure::ExceededWallTime);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels() {
    let plane = Plane::new();
    tricky(&plane);
    let gone = tokio::time::timeout(Duration::from_millis(50), plane.ask("tricky", get("http://a/hang")));
    assert!(gone.await.is_err());
    assert_eq!(text(plane.ask("tricky", get("http://a/")).await.unwrap()).await, "fine");
    assert_eq!(plane.invocations(&account("tricky"))[0].outcome, Outcome::Canceled);
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 1);
}

/// A body of so many bytes, none of which ever comes.
struct Promised(u64);

impl http_body::Body for Promised {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<bytes::Bytes>, BodyError>>> {
        std::task::Poll::Pending
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0)
    }
}

/// What crosses with the end of a request that its client gave up is no fault of the Worker.
#[tokio::test]
async fn clients_that_go_away_are_not_held_against_the_worker() {
    let plane = Plane::new();
    plane.sdk(worker("reads"), |request, _, _| async move {
        let path = request.uri().path().to_owned();
        request.into_body().collect().await?;
        Ok(Response::new(path.into()))
    });
    for _ in 0..100 {
        let gone = (0..100).map(|_| {
            let request = Request::post("http://a/").body(Body::boxed(Promised(1 << 20))).unwrap();
            tokio::time::timeout(Duration::from_millis(3), plane.ask("reads", request))
        });
        assert!(futures_util::future::join_all(gone).await.iter().all(Result::is_err));
    }
    assert_eq!(text(plane.ask("reads", get("http://a/fine")).await.unwrap()).await, "/fine");
    assert_eq!(plane.starter.starts.load(Ordering::Relaxed), 1);
}

/// A small body is waited for without a place in the process.
#[tokio::test]
async fn bodies_that_never_come_hold_no_place() {
    let plane = Plane::new();
    let busy = cloister_supervisor::registry::Deployed { concurrency: 2, ..worker("small") };
    plane.sdk(busy, |_, _, _| async move { Ok(Response::new("fine".into())) });
    let promise = || Request::post("http://a/").body(Body::boxed(Promised(100))).unwrap();
    let promised = (0..50).map(|_| plane.ask("small", promise()));
    let mut promised = std::pin::pin!(futures_util::future::join_all(promised));
    assert!(futures_util::poll!(promised.as_mut()).is_pending());
    assert_eq!(text(plane.ask("small", get("http://a/")).await.unwrap()).await, "fine");
    assert!(futures_util::poll!(promised.as_mut()).is_pending());
}

/// Requests that come to nothing cost others' time: after a hundred in a second they wait for the next one.
#[tokio::test]
async fn fetches_that_are_refused_wait_when_there_are_many() {
    let plane = Plane::new();
    plane.sdk(worker("asks"), |_, _, _| async move {
        for _ in 0..101 {
            let request = Request::get("http://refused.test/").body(WorkerBody::empty())?;
            assert!(cloister::fetch(request).await.is_err());
        }
        Ok(Response::new("refused".into()))
    });
    let begin = std::time::Instant::now();
    assert_eq!(text(plane.ask("asks", get("http://a/")).await.unwrap()).await, "refused");
    assert!(begin.elapsed() > Duration::from_millis(900), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_exception_is_recorded_and_told_without_its_text() {
    let plane = Plane::new();
    plane.sdk(worker("panics"), |_, _, _| async move { panic!("a secret") });
    let refusal = plane.ask("panics", get("http://a/")).await.unwrap_err();
    assert_eq!(refusal.failure, Failure::Exception);
    let records = plane.invocations(&account("panics"));
    assert!(records[0].reason.as_deref().unwrap().contains("a secret"));
}

#[tokio::test]
async fn a_worker_that_dies_at_once_is_left_alone_for_a_while() {
    let plane = Plane::new();
    plane.deploy(worker("dies"), Arc::new(|_, _| Box::pin(async {})));
    for _ in 0..20 {
        let refusal = plane.ask("dies", get("http://a/")).await.unwrap_err();
        assert_eq!(refusal.failure, Failure::StartFailed);
    }
    assert!(plane.starter.starts.load(Ordering::Relaxed) < 10);
    let trouble = plane.dispatcher.pool().trouble(&account("dies")).unwrap();
    assert!(trouble.contains("before it answered anything"), "{trouble}");
}

#[tokio::test]
async fn wait_until_work_goes_on_after_the_answer() {
    let plane = Plane::new();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = Arc::new(std::sync::Mutex::new(Some(sender)));
    plane.sdk(worker("later"), move |_, _, ctx: cloister::Context| {
        let sender = sender.lock().unwrap().take();
        async move {
            ctx.wait_until(async move {
                let fetched =
                    cloister::fetch(http::Request::get("http://a/").body(WorkerBody::empty()).unwrap()).await;
                let _ = sender.unwrap().send(fetched.is_err());
            });
            Ok(Response::new(WorkerBody::from("soon")))
        }
    });
    assert_eq!(text(plane.ask("later", get("http://a/")).await.unwrap()).await, "soon");
    assert!(receiver.await.unwrap());
}
