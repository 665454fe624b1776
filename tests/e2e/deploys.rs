//! Deploying while requests come in.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use http::Method;
use serde_json::json;

use crate::{platform, server, worker};

#[tokio::test]
async fn a_new_version_loses_no_request() {
    let platform = platform().await;
    let version =
        |text: &str| worker("a").binding(json!({ "type": "plain_text", "name": "V", "text": text }));
    version("0").deploy(&platform).await;
    let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let load = async {
        let http = platform.http();
        while !over.load(Ordering::Relaxed) {
            let (quick, slow) =
                tokio::join!(http.get("http://a.test/env/V"), http.get("http://a.test/sleep/20"));
            quick.expect(200);
            slow.expect(200);
            asked.fetch_add(2, Ordering::Relaxed);
        }
    };
    let deploys = async {
        for n in 1..=5 {
            version(&n.to_string()).deploy(&platform).await;
            assert_eq!(platform.http().get("http://a.test/env/V").await.expect(200).text(), n.to_string());
        }
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, load_again(&platform, &over, &asked), deploys);
    assert!(asked.load(Ordering::Relaxed) > 20, "hardly any request was made");
}

async fn load_again(platform: &cloister_tests::Platform, over: &AtomicBool, asked: &AtomicU32) {
    let http = platform.http();
    while !over.load(Ordering::Relaxed) {
        http.get("http://a.test/env/V").await.expect(200);
        asked.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_delete_ends_the_worker() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    platform.http().get("http://a.test/").await.expect(200);
    platform.delete(Some("production"), "a").await.expect(200);
    platform.http().get("http://a.test/").await.expect_failure(404, 1042);
    let begin = std::time::Instant::now();
    while !platform.workers_named("a").is_empty() {
        assert!(begin.elapsed().as_secs() < 10, "it lives on: {:?}", platform.workers());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn namespaces_and_scripts_by_the_api() {
    let platform = platform().await;
    platform.namespace("staging").await;
    let list = platform.api(Method::GET, "/dispatch/namespaces", None).await.expect(200).json();
    let mut names: Vec<_> = list["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n["namespace_name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["production", "staging"]);
    let twice = platform.api(Method::POST, "/dispatch/namespaces", Some(json!({ "name": "staging" }))).await;
    assert!(twice.status.is_client_error(), "{}", twice.text());

    let deployed = server("a").metadata("tags", vec!["team-a"]).deploy(&platform).await;
    assert!(deployed["startup_time_ms"].is_number(), "{deployed}");
    let one =
        platform.api(Method::GET, "/dispatch/namespaces/production/scripts/a", None).await.expect(200).json();
    assert_eq!(one["success"], true, "{one}");
    let list =
        platform.api(Method::GET, "/dispatch/namespaces/production/scripts", None).await.expect(200).json();
    assert_eq!(list["result"].as_array().unwrap().len(), 1, "{list}");
    let content = platform
        .api(Method::GET, "/dispatch/namespaces/production/scripts/a/content", None)
        .await
        .expect(200);
    assert!(content.body.windows(4).any(|window| window == b"\x7fELF"));

    platform.api(Method::DELETE, "/dispatch/namespaces/staging", None).await.expect(200);
    platform.api(Method::GET, "/dispatch/namespaces/staging", None).await.expect(404);
}
