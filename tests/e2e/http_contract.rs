//! The `http` contract: requests, bodies, upgrades and bindings of a server that knows nothing of Cloister.

use std::time::Instant;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{platform, server};

#[tokio::test]
async fn answers() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let answer = platform.http().get("http://a.test/").await.expect(200);
    assert!(answer.text().starts_with("hello "), "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    platform.http().get("http://a.test/no-such-path").await.expect(404);
}

#[tokio::test]
async fn one_process_answers_many_requests() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let mut numbers = Vec::new();
    for _ in 0..20 {
        let text = platform.http().get("http://a.test/").await.expect(200).text();
        numbers.push(text.trim().strip_prefix("hello ").unwrap().parse::<u32>().unwrap());
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "a process was replaced: {numbers:?}");
}

/// A process whose first thread has ended can't be reached any more, though others of it live: it is ended whole and
/// replaced, and nobody is told that the platform failed.
#[tokio::test]
async fn a_process_without_its_first_thread_is_replaced() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/leader").await.expect(200);
    let http = platform.http();
    // More at a time than there are sockets in stock: further ones would be made in its network namespace.
    for answer in join_all((0..12).map(|_| http.get("http://a.test/sleep/200"))).await {
        // Those that it had already end with it, and are its fault.
        if answer.status != 200 {
            answer.expect_failure(502, 1053);
        }
    }
    http.get("http://a.test/").await.expect(200);
    let said = platform.cli(["worker", "inspect", "a", "-n", "production"]).await.ok();
    assert!(!said.out.contains("DISAGREES"), "{}", said.out);
}

#[tokio::test]
async fn inherits_a_listening_socket() {
    let platform = platform().await;
    server("a").cloister("socket", "inherit").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    assert_eq!(platform.http().get("http://a.test/env/LISTEN_FDS").await.expect(200).text(), "1");
    assert_eq!(platform.http().get("http://a.test/env/LISTEN_PID").await.expect(200).text(), "1");
}

#[tokio::test]
async fn arguments_and_environment_are_what_the_manifest_says() {
    let platform = platform().await;
    server("a")
        .args(&["--port=${PORT}", "two words"])
        .binding(json!({ "type": "plain_text", "name": "GREETING", "text": "hi" }))
        .binding(json!({ "type": "secret_text", "name": "KEY", "text": "s3cret" }))
        .binding(json!({ "type": "json", "name": "LIST", "json": [1, 2] }))
        .deploy(&platform)
        .await;
    let get = async |path: &str| platform.http().get(&format!("http://a.test{path}")).await;
    assert_eq!(get("/args").await.expect(200).text(), "a\n--port=8080\ntwo words\n");
    assert_eq!(get("/env/GREETING").await.expect(200).text(), "hi");
    assert_eq!(get("/env/KEY").await.expect(200).text(), "s3cret");
    assert_eq!(get("/env/LIST").await.expect(200).text(), "[1,2]");
    assert_eq!(get("/env/PORT").await.expect(200).text(), "8080");
    for nothing in ["PATH", "USER", "NOTIFY_SOCKET", "CLOISTER_SOCKET", "LISTEN_FDS"] {
        get(&format!("/env/{nothing}")).await.expect(404);
    }
}

#[tokio::test]
async fn files_lie_read_only_at_app() {
    let platform = platform().await;
    let files: &[(&str, &[u8])] = &[("page.txt", b"a page"), ("deep/er/page.txt", b"another")];
    server("a").files(files).deploy(&platform).await;
    let get = async |path: &str| platform.http().get(&format!("http://a.test{path}")).await;
    assert_eq!(get("/read/app/page.txt").await.expect(200).text(), "a page");
    assert_eq!(get("/read/app/deep/er/page.txt").await.expect(200).text(), "another");
    // The host's accounts are not there: a made-up one is.
    assert!(!get("/read/etc/passwd").await.expect(200).text().contains("root"));
    get("/read/etc/shadow").await.expect(403);
}

#[tokio::test]
async fn a_large_body_arrives_whole_in_both_directions() {
    const LENGTH: usize = 100 << 20;
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let block = Bytes::from((0..1 << 20).map(|n: u32| n.to_le_bytes()[1]).collect::<Vec<_>>());
    let sum = block.iter().fold(0_u32, |sum, byte| sum.wrapping_add(u32::from(*byte)));
    let blocks = LENGTH / block.len();
    let sum = sum.wrapping_mul(u32::try_from(blocks).unwrap());
    let frames = std::iter::repeat_n(block, blocks).map(|block| Ok::<_, std::io::Error>(Frame::data(block)));
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let answer = platform.http().send(Request::post("http://a.test/length").body(body).unwrap()).await;
    assert_eq!(answer.expect(200).text(), format!("{LENGTH} {sum}\n"));

    let answer = platform.http().get(&format!("http://a.test/bytes/{LENGTH}")).await.expect(200);
    assert_eq!(answer.body.len(), LENGTH);
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
}

#[tokio::test]
async fn a_streamed_answer_comes_as_it_is_made() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let request = Request::get("http://a.test/chunks/50").body(Full::<Bytes>::default()).unwrap();
    let begin = Instant::now();
    let mut body = platform.http().open(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"chunk\n"));
    let first_at = begin.elapsed();
    let rest = body.collect().await.unwrap().to_bytes();
    assert_eq!(first.len() + rest.len(), 50 * 6);
    assert!(first_at < begin.elapsed() / 2, "the first chunk waited for the last");
}

#[tokio::test]
async fn many_requests_in_flight() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let http = platform.http();
    let begin = Instant::now();
    let answers = join_all((0..40).map(|_| http.get("http://a.test/sleep/200"))).await;
    assert!(answers.into_iter().all(|answer| answer.expect(200).text() == "slept\n"));
    assert!(begin.elapsed().as_millis() < 4000, "they waited for each other: {:?}", begin.elapsed());
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let ask = async |protocol: &str| {
        let request = Request::get("http://a.test/upgrade").header("connection", "upgrade, http2-settings");
        let request = request.header("http2-settings", "AAMAAABkAAQAAP__").header("upgrade", protocol);
        platform.http().open(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
    };
    // After any other switch requests could pass that nobody sees. The Worker says 101 all the same.
    assert_eq!(ask("h2c").await.status(), 502);
    let answer = ask("websocket").await;
    assert_eq!(answer.status(), 101);
    let mut tunnel = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    for size in [1, 70_000, 3] {
        let sent = vec![b'u'; size];
        let mut got = vec![0; size];
        let (mut reader, mut writer) = tokio::io::split(&mut tunnel);
        let (wrote, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got));
        wrote.unwrap();
        read.unwrap();
        assert_eq!(sent, got);
    }
    tunnel.shutdown().await.unwrap();
    assert_eq!(tunnel.read(&mut [0; 10]).await.unwrap(), 0, "the end is passed on");
}

#[tokio::test]
async fn what_is_no_http_becomes_a_clear_failure() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let http = platform.http();
    http.get("http://a.test/").await.expect(200);
    http.get("http://a.test/garbage").await.expect_failure(502, 1053);
    http.get("http://a.test/interim").await.expect_failure(502, 1053);
    http.get("http://a.test/").await.expect(200);
    http.get("http://a.test/exit").await.expect_failure(500, 1101);
    http.get("http://a.test/").await.expect(200);
    http.get("http://a.test/abort").await.expect_failure(500, 1101);
    http.get("http://a.test/").await.expect(200);
    let cut = http.try_send(Request::get("http://a.test/half").body(Full::<Bytes>::default()).unwrap()).await;
    assert!(cut.is_err(), "a body that was cut must not look whole: {cut:?}");
    http.get("http://a.test/").await.expect(200);
}

/// Its answer does not wait for the request's body, which never comes to its end: the connection is no use to
/// anybody else.
#[tokio::test]
async fn an_early_answer_holds_up_nobody_else() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    let mut hanging = Vec::new();
    for _ in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(platform.address()).await.unwrap();
        let head = "POST /early HTTP/1.1\r\nhost: a.test\r\ncontent-length: 1000\r\n\r\nxx";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"early\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{}", String::from_utf8_lossy(&seen));
        }
        hanging.push(stream);
        let http = platform.http();
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), http.get("http://a.test/")).await;
        next.expect("an answer that does not wait for another's body").expect(200);
    }
    drop(hanging);
}
