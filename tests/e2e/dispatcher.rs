//! Dispatch Workers: calls, tail dispatch, limits and arguments of a call, services, loops.

use bytes::Bytes;
use cloister_tests::{Answer, Config, Platform, Upload, tenant};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use crate::ipc_contract::long_body;
use crate::{platform_with, server, server_program, worker};

/// The host `d.example` is the dispatch Worker `d`.
pub(crate) fn config() -> Config {
    crate::config().route("host = \"d.example\"\ndispatch = \"d\"")
}

/// Deploys it, with `production` bound to it.
pub(crate) async fn deploy(platform: &Platform) {
    Upload::account("d", tenant("anything"))
        .binding(json!({ "type": "dispatch_namespace", "name": "NS", "namespace": "production" }))
        .deploy(platform)
        .await;
}

async fn ask(platform: &Platform, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(format!("http://d.example{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    platform.http().send(request.body(Full::<Bytes>::default()).unwrap()).await
}

#[tokio::test]
async fn by_call_and_by_tail() {
    let platform = platform_with(config()).await;
    deploy(&platform).await;
    worker("a").deploy(&platform).await;
    server("b").deploy(&platform).await;
    for way in ["dispatch", "tail"] {
        assert!(ask(&platform, &format!("/{way}/a/"), &[]).await.expect(200).text().starts_with("hello "));
        assert!(ask(&platform, &format!("/{way}/b/"), &[]).await.expect(200).text().starts_with("hello "));
        let context = ask(&platform, &format!("/{way}/a/context"), &[]).await.expect(200).json();
        assert_eq!(context["worker"], "a", "{way}");
        for (path, length) in [("a/echo", 20), ("b/echo", 20), ("a/through", 20)] {
            let (body, sum) = long_body(length);
            let request = Request::post(format!("http://d.example/{way}/{path}")).body(body).unwrap();
            let answer = platform.http().send(request).await.expect(200);
            assert_eq!(answer.body.len(), length << 20, "{way} {path}");
            assert_eq!(
                answer.body.iter().fold(0_u32, |sum, b| sum.wrapping_add(u32::from(*b))),
                sum,
                "{way} {path}"
            );
        }
    }
}

#[tokio::test]
async fn a_missing_worker() {
    let platform = platform_with(config()).await;
    deploy(&platform).await;
    let typed = ask(&platform, "/dispatch/nobody/", &[]).await.expect(599);
    assert!(typed.text().starts_with("NotFound"), "{}", typed.text());
    ask(&platform, "/tail/nobody/", &[]).await.expect_failure(404, 1042);
    ask(&platform, "/", &[]).await.expect(200);
}

#[tokio::test]
async fn limits_and_arguments_of_the_call() {
    let platform = platform_with(config()).await;
    deploy(&platform).await;
    worker("a").metadata("limits", json!({ "cpu_ms": 10_000, "wall_ms": 20_000 })).deploy(&platform).await;
    for way in ["dispatch", "tail"] {
        let args = ask(&platform, &format!("/{way}/a/context"), &[("args", "{\"plan\":7}")])
            .await
            .expect(200)
            .json();
        assert_eq!(args["args"], json!({ "plan": 7 }), "{way}");
    }
    ask(&platform, "/tail/a/spin", &[("limits", "{\"cpu_ms\":50}")]).await.expect_failure(503, 1102);
    assert_eq!(ask(&platform, "/tail/a/", &[]).await.expect(200).text(), "hello 1\n", "not a fresh process");
    let typed = ask(&platform, "/dispatch/a/spin", &[("limits", "{\"cpu_ms\":50}")]).await.expect(599);
    assert!(typed.text().contains("1102"), "{}", typed.text());
    ask(&platform, "/tail/a/hang", &[("limits", "{\"wall_ms\":100}")]).await.expect_failure(504, 1051);
    let typed = ask(&platform, "/dispatch/a/hang", &[("limits", "{\"wall_ms\":100}")]).await.expect(599);
    assert!(typed.text().contains("1051"), "{}", typed.text());
    // The dispatch Worker itself goes on.
    ask(&platform, "/", &[]).await.expect(200);
}

#[tokio::test]
async fn failures_of_the_user_worker() {
    let platform = platform_with(config()).await;
    deploy(&platform).await;
    worker("a").deploy(&platform).await;
    ask(&platform, "/tail/a/error", &[]).await.expect_failure(500, 1101);
    ask(&platform, "/tail/a/exit", &[]).await.expect_failure(500, 1101);
    let typed = ask(&platform, "/dispatch/a/exit", &[]).await.expect(599);
    assert!(typed.text().contains("1101"), "{}", typed.text());
    ask(&platform, "/dispatch/a/", &[]).await.expect(200);
}

#[tokio::test]
async fn by_a_response_header_of_the_http_contract() {
    let route = "host = \"h.example\"\ndispatch = \"h\"";
    let platform = platform_with(config().route(route)).await;
    Upload::account("h", crate::server_program())
        .http()
        .binding(json!({ "type": "dispatch_namespace", "name": "NS", "namespace": "production" }))
        .deploy(&platform)
        .await;
    worker("a").deploy(&platform).await;
    let answer = platform.http().get("http://h.example/hand/a").await.expect(404);
    assert_eq!(answer.text(), "no such path\n", "answered by the user Worker, asked for /hand/a");
    platform.http().get("http://h.example/hand/nobody").await.expect_failure(404, 1042);
    // A Worker without the binding can't.
    server("b").deploy(&platform).await;
    let answer = platform.http().get("http://b.test/hand/a").await;
    assert_ne!(answer.text(), "no such path\n");
}

#[tokio::test]
async fn a_service_of_the_account() {
    let platform = platform_with(config()).await;
    Upload::account("s", tenant("anything")).deploy(&platform).await;
    worker("a")
        .binding(json!({ "type": "service", "name": "OTHER", "service": "s" }))
        .deploy(&platform)
        .await;
    let context = platform.http().get("http://a.test/service/context").await.expect(200).json();
    assert_eq!((&context["worker"], &context["namespace"]), (&json!("s"), &json!("")));
}

#[tokio::test]
async fn a_loop_ends() {
    let route = "host = \"loop.example\"\ndispatch = \"loop\"";
    let platform = platform_with(config().route(route)).await;
    Upload::account("loop", tenant("anything")).deploy(&platform).await;
    let again = json!({ "type": "service", "name": "OTHER", "service": "loop" });
    Upload::account("loop", tenant("anything")).binding(again).deploy(&platform).await;
    let path = "service/".repeat(30);
    let answer = platform.http().get(&format!("http://loop.example/{path}")).await;
    assert!(answer.text().contains("1019"), "{} {}", answer.status, answer.text());
    platform.http().get("http://loop.example/").await.expect(200);
}

/// A server that asks for itself after each answer: all of it comes of one request, and ends as that would.
#[tokio::test]
async fn a_loop_between_calls_ends() {
    let platform = platform_with(config()).await;
    for name in ["a", "b"] {
        Upload::account(name, server_program()).http().deploy(&platform).await;
    }
    for (name, other) in [("a", "b"), ("b", "a")] {
        let binding = json!({ "type": "service", "name": "OTHER", "service": other });
        Upload::account(name, server_program()).http().binding(binding).deploy(&platform).await;
    }
    let binding = json!({ "type": "service", "name": "FIRST", "service": "a" });
    server("c").binding(binding).deploy(&platform).await;
    let url = "http://c.test/proxy?http://first.cloister/again?http://other.cloister";
    assert!(platform.http().get(url).await.expect(200).text().ends_with("again\n"));
    let begin = std::time::Instant::now();
    while !platform.log().contains("Workers called each other for one request") {
        assert!(begin.elapsed().as_secs() < 20, "it goes on:\n{}", platform.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A process has the bindings of the version it was started from, also when that is no more the current one.
#[tokio::test]
async fn a_draining_process_keeps_its_bindings() {
    let platform = platform_with(config()).await;
    Upload::account("s", tenant("anything")).deploy(&platform).await;
    let binding = json!({ "type": "service", "name": "OTHER", "service": "s" });
    server("a").binding(binding).deploy(&platform).await;
    let url = "http://a.test/keep?http://other.cloister/";
    let request = Request::get(url).body(Full::<Bytes>::default()).unwrap();
    let mut old = platform.http().open(request).await.unwrap().into_body();
    assert_eq!(old.frame().await.unwrap().unwrap().into_data().unwrap(), "200\n");
    server("a").deploy(&platform).await;
    let answer = platform.http().get("http://a.test/proxy?http://other.cloister/").await.expect(200).text();
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    for _ in 0..5 {
        assert_eq!(old.frame().await.unwrap().unwrap().into_data().unwrap(), "200\n");
    }
    // Or the end of the supervisor would wait for it.
    drop(old);
    platform.http().get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn clients_can_not_set_what_only_the_platform_may() {
    let platform = platform_with(config()).await;
    worker("a").deploy(&platform).await;
    let request = Request::get("http://a.test/context")
        .header("cloister-dispatch", "b")
        .header("cloister-ray", "forged");
    let context =
        platform.http().send(request.body(Full::<Bytes>::default()).unwrap()).await.expect(200).json();
    assert_ne!(context["ray"], "forged");
    assert!(context["headers"].get("cloister-dispatch").is_none(), "{context}");
}
