//! Processes that are killed from outside.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use cloister_tests::Platform;

use crate::{platform, server};

fn kill_all(pids: impl IntoIterator<Item = i32>) {
    for pid in pids {
        // It may be gone already, with its parent.
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_of_a_request() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    server("b").deploy(&platform).await;
    let http = platform.http();
    http.get("http://b.test/").await.expect(200);
    // The head of the answer is the event that says: it is at it.
    let request = Request::get("http://a.test/chunks/10000").body(Full::<Bytes>::default()).unwrap();
    let mut body = http.open(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    kill_all(platform.workers_named("a"));
    let end = body.collect().await;
    assert!(end.is_err(), "a body that was cut must not look whole");
    served_again(&platform, "http://a.test/").await;
    http.get("http://b.test/").await.expect(200);
}

/// Asks until the answer is 200. The kernel closes a dead process's sockets one by one, and tells the
/// supervisor when it likes: a few answers may still be owed to the dead.
async fn served_again(platform: &Platform, url: &str) {
    let mut answers = Vec::new();
    while answers.last() != Some(&200) {
        answers.push(platform.http().get(url).await.status.as_u16());
        assert!(answers.len() < 20, "never served again: {answers:?}");
    }
    assert!(answers.iter().all(|status| [200, 500, 502].contains(status)), "{answers:?}");
}

#[tokio::test]
async fn workers_that_are_killed_again_and_again_are_replaced() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    for _ in 0..5 {
        platform.http().get("http://a.test/").await.expect(200);
        kill_all(platform.workers_named("a"));
        served_again(&platform, "http://a.test/").await;
    }
}

#[tokio::test]
async fn without_its_launcher_the_supervisor_ends_and_so_does_every_worker() {
    let mut platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    kill_all([platform.launcher()]);
    let status = platform.ended(Duration::from_secs(10));
    assert!(!status.success(), "the end of the launcher must look like a failure to who restarts it");
    assert!(platform.log().contains("launcher"), "{}", platform.log());
    platform.run().await;
    platform.http().get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn a_killed_supervisor_takes_every_worker_with_it() {
    let mut platform = platform().await;
    for name in ["a", "b", "c"] {
        server(name).deploy(&platform).await;
        platform.http().get(&format!("http://{name}.test/")).await.expect(200);
    }
    assert!(platform.workers().len() >= 3);
    // Asserts that no process of it is left.
    platform.kill();
    platform.run().await;
    platform.http().get("http://a.test/").await.expect(200);
}
