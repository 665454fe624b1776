//! Limits: who goes over is ended with the right code, the next request is served by a fresh process, and
//! others don't notice.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::json;

use crate::{config, platform, platform_with, server};

#[tokio::test]
async fn cpu_time() {
    let platform = platform().await;
    server("a").metadata("limits", json!({ "cpu_ms": 100 })).deploy(&platform).await;
    server("b").deploy(&platform).await;
    let http = platform.http();
    http.get("http://a.test/burn/10").await.expect(200);
    let before = platform.workers();
    let begin = Instant::now();
    http.get("http://a.test/spin").await.expect_failure(503, 1102);
    assert!(begin.elapsed() < Duration::from_secs(5), "ended late: {:?}", begin.elapsed());
    assert_eq!(http.get("http://a.test/").await.expect(200).text(), "hello 1\n", "not a fresh process");
    assert_ne!(before, platform.workers());
    http.get("http://b.test/burn/300").await.expect(200);
}

#[tokio::test]
async fn waiting_is_not_cpu_time() {
    let platform = platform().await;
    server("a").metadata("limits", json!({ "cpu_ms": 50 })).deploy(&platform).await;
    platform.http().get("http://a.test/sleep/500").await.expect(200);
}

#[tokio::test]
async fn others_are_served_while_one_spins() {
    let platform = platform().await;
    server("a").metadata("limits", json!({ "cpu_ms": 2000 })).deploy(&platform).await;
    server("b").deploy(&platform).await;
    let http = platform.http();
    http.get("http://b.test/").await.expect(200);
    let spinning = http.get("http://a.test/spin");
    let others = async {
        for _ in 0..50 {
            http.get("http://b.test/").await.expect(200);
        }
    };
    let (spun, ()) = tokio::join!(spinning, others);
    spun.expect_failure(503, 1102);
}

#[tokio::test]
async fn wall_time() {
    let platform = platform().await;
    server("a").metadata("limits", json!({ "wall_ms": 200 })).deploy(&platform).await;
    let http = platform.http();
    http.get("http://a.test/").await.expect(200);
    http.get("http://a.test/hang").await.expect_failure(504, 1051);
    http.get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn memory() {
    let platform = platform().await;
    server("a").cloister("resources", json!({ "memory_bytes": 32 << 20 })).deploy(&platform).await;
    server("b").deploy(&platform).await;
    let http = platform.http();
    http.get("http://a.test/allocate/8").await.expect(200);
    http.get("http://b.test/allocate/64").await.expect(200);
    http.get("http://a.test/allocate/200").await.expect_failure(503, 1102);
    assert_eq!(http.get("http://a.test/").await.expect(200).text(), "hello 1\n", "not a fresh process");
    assert_eq!(http.get("http://b.test/").await.expect(200).text(), "hello 2\n", "another Worker was hit");
}

#[tokio::test]
async fn tmp_is_bounded() {
    let platform = platform().await;
    server("a").cloister("resources", json!({ "tmp_bytes": 4 << 20 })).deploy(&platform).await;
    let written: u32 =
        platform.http().get("http://a.test/fill/100").await.expect(200).text().trim().parse().unwrap();
    assert!((2..=4).contains(&written), "{written} MiB fit into 4 MiB");
}

#[tokio::test]
async fn request_body() {
    let platform = platform().await;
    server("a").metadata("limits", json!({ "request_body_bytes": 1000 })).deploy(&platform).await;
    let http = platform.http();
    http.post("http://a.test/echo", vec![b'x'; 1000]).await.expect(200);
    http.post("http://a.test/echo", vec![b'x'; 1001]).await.expect_failure(413, 1054);
    // The same without a length told beforehand.
    let frames =
        (0..11).map(|_| Ok::<_, std::io::Error>(hyper::body::Frame::data(Bytes::from(vec![b'x'; 100]))));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    http.send(Request::post("http://a.test/echo").body(body).unwrap()).await.expect_failure(413, 1054);
    http.get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn the_lowest_of_plan_route_and_worker_wins() {
    let route =
        "host = \"tight.example\"\nworker = \"a\"\nnamespace = \"production\"\nlimits = { wall_ms = 150 }";
    let config = config().route(route).set("limits", "wall_ms", "1500");
    let platform = platform_with(config).await;
    server("a").metadata("limits", json!({ "wall_ms": 60_000 })).deploy(&platform).await;
    let http = platform.http();
    http.get("http://tight.example/sleep/1").await.expect(200);
    http.get("http://tight.example/sleep/700").await.expect_failure(504, 1051);
    http.get("http://a.test/sleep/700").await.expect(200);
    http.get("http://a.test/hang").await.expect_failure(504, 1051);
}

#[tokio::test]
async fn rate_limit_of_a_route() {
    let route = "host = \"slow.example\"\nworker = \"a\"\nnamespace = \"production\"\n\
                 rate_limit = { requests_per_second = 1, burst = 3 }";
    let platform = platform_with(config().route(route)).await;
    server("a").deploy(&platform).await;
    let request = || Request::get("http://slow.example/").body(Full::<Bytes>::default()).unwrap();
    for _ in 0..3 {
        platform.http().send(request()).await.expect(200);
    }
    let refused = platform.http().send(request()).await.expect_failure(429, 1015);
    assert!(refused.header("retry-after").is_some());
    platform.http().get("http://a.test/").await.expect(200);
}
