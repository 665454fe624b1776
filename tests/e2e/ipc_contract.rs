//! The `ipc` contract, by the SDK.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::json;

use crate::{platform, worker};

/// A body of `mib` MiB that is told chunk by chunk, and the sum of its bytes.
pub(crate) fn long_body(mib: usize) -> (impl hyper::body::Body<Data = Bytes, Error = std::io::Error>, u32) {
    let block = Bytes::from((0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect::<Vec<_>>());
    let sum = block.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let frames = std::iter::repeat_n(block, mib).map(|block| Ok(Frame::data(block)));
    (StreamBody::new(futures_util::stream::iter(frames)), sum.wrapping_mul(u32::try_from(mib).unwrap()))
}

#[tokio::test]
async fn answers() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let http = platform.http();
    assert_eq!(http.get("http://a.test/").await.expect(200).text(), "hello 1\n");
    assert_eq!(http.get("http://a.test/").await.expect(200).text(), "hello 2\n", "another process");
    http.get("http://a.test/nothing-here").await.expect(404);
    assert_eq!(http.post("http://a.test/echo", "short").await.expect(200).text(), "short");
}

#[tokio::test]
async fn bindings_and_context() {
    let platform = platform().await;
    worker("a")
        .binding(json!({ "type": "plain_text", "name": "GREETING", "text": "hi" }))
        .binding(json!({ "type": "secret_text", "name": "KEY", "text": "s3cret" }))
        .binding(json!({ "type": "json", "name": "LIST", "json": { "a": [1] } }))
        .deploy(&platform)
        .await;
    let get = async |path: &str| platform.http().get(&format!("http://a.test{path}")).await;
    assert_eq!(get("/env/GREETING").await.expect(200).text(), "hi");
    assert_eq!(get("/secret/KEY").await.expect(200).text(), "s3cret");
    assert_eq!(get("/json/LIST").await.expect(200).text(), "{\"a\":[1]}");
    get("/env/KEY").await.expect_failure(500, 1101);
    get("/env/MISSING").await.expect_failure(500, 1101);
    let context = get("/context?q=1").await.expect(200).json();
    assert_eq!((&context["worker"], &context["namespace"]), (&json!("a"), &json!("production")));
    assert_eq!(context["uri"], "http://a.test/context?q=1");
    assert_eq!(context["client"], "127.0.0.1");
    assert!(!context["ray"].as_str().unwrap().is_empty());
    assert!(!context["version"].as_str().unwrap().is_empty());
}

#[tokio::test]
async fn a_large_body_arrives_whole_in_both_directions() {
    const MIB: usize = 100;
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let (body, sum) = long_body(MIB);
    let answer = platform.http().send(Request::post("http://a.test/length").body(body).unwrap()).await;
    assert_eq!(answer.expect(200).text(), format!("{} {sum} 0\n", MIB << 20));

    let answer = platform.http().get(&format!("http://a.test/bytes/{}", MIB << 20)).await.expect(200);
    assert_eq!(answer.body.len(), MIB << 20);
    assert!(answer.body.iter().all(|byte| *byte == b'x'));

    for path in ["echo", "through"] {
        let (body, sum) = long_body(20);
        let request = Request::post(format!("http://a.test/{path}")).body(body).unwrap();
        let answer = platform.http().send(request).await.expect(200);
        assert_eq!(answer.body.len(), 20 << 20, "{path}");
        assert_eq!(answer.body.iter().fold(0_u32, |sum, b| sum.wrapping_add(u32::from(*b))), sum, "{path}");
    }
}

#[tokio::test]
async fn a_streamed_answer_comes_as_it_is_made() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let request = Request::get("http://a.test/chunks/50").body(Full::<Bytes>::default()).unwrap();
    let begin = Instant::now();
    let mut body = platform.http().open(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    let first_at = begin.elapsed();
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(first.len() + rest.len(), 50 * 6);
    assert!(first_at < begin.elapsed() / 2, "the first chunk waited for the last");
}

#[tokio::test]
async fn trailers_go_through() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let request = Request::get("http://a.test/trailers").header("te", "trailers");
    let answer = platform.http().send(request.body(Full::<Bytes>::default()).unwrap()).await.expect(200);
    assert_eq!(answer.body.len(), 100_000);
    assert_eq!(answer.trailers.get("x-sum").unwrap(), "42");

    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-a", http::HeaderValue::from_static("b"));
    let frames = [Frame::data(Bytes::from(vec![b'x'; 100_000])), Frame::trailers(trailers)];
    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, std::io::Error>)));
    let request = Request::post("http://a.test/length").header("trailer", "x-a").body(body).unwrap();
    assert!(platform.http().send(request).await.expect(200).text().ends_with(" 1\n"));
}

#[tokio::test]
async fn many_requests_in_flight() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let http = platform.http();
    let begin = Instant::now();
    let answers = join_all((0..200).map(|_| http.get("http://a.test/sleep/300"))).await;
    assert!(answers.into_iter().all(|answer| answer.expect(200).text() == "slept\n"));
    assert!(begin.elapsed().as_millis() < 6000, "they waited for each other: {:?}", begin.elapsed());
}

#[tokio::test]
async fn failures_have_their_codes_and_tell_clients_nothing() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let http = platform.http();
    for path in ["panic", "error"] {
        let answer = http.get(&format!("http://a.test/{path}")).await.expect_failure(500, 1101);
        assert!(!answer.text().contains("as told"), "a tenant's words reached a client: {}", answer.text());
        http.get("http://a.test/").await.expect(200);
    }
    http.get("http://a.test/exit").await.expect_failure(500, 1101);
    assert_eq!(http.get("http://a.test/").await.expect(200).text(), "hello 1\n", "not a fresh process");
    let cut = http.try_send(Request::get("http://a.test/cut").body(Full::<Bytes>::default()).unwrap()).await;
    assert!(cut.is_err(), "a body that was cut must not look whole");
    http.get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn an_error_is_json_for_who_asks_for_json() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let request = Request::get("http://a.test/error").header("accept", "application/json");
    let answer = platform.http().send(request.body(Full::<Bytes>::default()).unwrap()).await;
    let json = answer.expect_failure(500, 1101).json();
    assert!(json.to_string().contains("1101"), "{json}");
}

#[tokio::test]
async fn wait_until_goes_on_after_the_answer() {
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let http = platform.http();
    http.get("http://a.test/").await.expect(200);
    let begin = Instant::now();
    http.get("http://a.test/later").await.expect(200);
    assert!(begin.elapsed().as_millis() < 900, "the answer waited: {:?}", begin.elapsed());
    let mut counts = Vec::new();
    while counts.last().map(String::as_str) != Some("1\n") {
        counts.push(http.get("http://a.test/count").await.expect(200).text());
        assert!(begin.elapsed().as_secs() < 10, "it never ended: {counts:?}");
    }
}

#[tokio::test]
async fn an_axum_router_is_a_worker() {
    let platform = platform().await;
    let router = cloister_tests::tenant("axum-router");
    cloister_tests::Upload::user("production", "a", router).deploy(&platform).await;
    assert_eq!(platform.http().get("http://a.test/hello/world").await.expect(200).text(), "hello world");
    let sum = Request::post("http://a.test/sum").header("content-type", "application/json");
    let answer = platform.http().send(sum.body(Full::new(Bytes::from("[1,2,3]"))).unwrap()).await;
    assert_eq!(answer.expect(200).text(), "6");
    platform.http().get("http://a.test/nothing").await.expect(404);
}
