//! What is wrong is refused with words that help, and nothing is lost by it.

use cloister_tests::{Platform, Upload};
use http::Method;

use crate::{config, platform, server, server_program};

/// Uploads it, and asserts that it is refused with these words and that the Worker deployed before still serves.
async fn refused(platform: &Platform, upload: Upload, words: &[&str]) {
    let answer = upload.send(platform).await;
    assert!(answer.status.is_client_error(), "{}: {}", answer.status, answer.text());
    let json = answer.json();
    assert_eq!(json["success"], false);
    let message = json["errors"][0]["message"].as_str().unwrap_or_default().to_lowercase();
    for word in words {
        assert!(message.contains(&word.to_lowercase()), "no {word:?} in {message:?}");
    }
    assert!(json["errors"][0]["code"].is_u64(), "{json}");
    platform.http().get("http://a.test/").await.expect(200);
}

#[tokio::test]
async fn programs_that_can_not_run() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    let good = std::fs::read(server_program().path).unwrap();
    let bytes = |bytes: Vec<u8>| Upload::bytes("a", bytes).namespace("production").http();

    refused(&platform, bytes(b"#!/bin/sh\necho hi\n".to_vec()), &["script", "#!/bin/sh"]).await;
    refused(&platform, bytes(Vec::new()), &["empty"]).await;
    refused(&platform, bytes(good[..100].to_vec()), &[]).await;

    let mut arm = good.clone();
    arm[18..20].copy_from_slice(&183_u16.to_le_bytes());
    refused(&platform, bytes(arm), &["aarch64", "x86"]).await;

    let mut loader = std::fs::read("/usr/sbin/nginx").unwrap();
    let name = b"/lib64/ld-linux-x86-64.so.2";
    let at = loader.windows(name.len()).position(|window| window == name).unwrap();
    loader[at..at + name.len()].copy_from_slice(b"/lib64/ld-missing-x86-64.so");
    refused(&platform, bytes(loader), &["ld-missing"]).await;
}

#[tokio::test]
async fn programs_that_do_not_serve() {
    let platform = Platform::with(config().set("pool", "start_timeout_ms", "1000")).await;
    platform.namespace("production").await;
    server("a").deploy(&platform).await;
    refused(&platform, server("a").args(&["exit"]), &["exit"]).await;
    refused(&platform, server("a").args(&["silent"]), &["8080"]).await;
    refused(&platform, server("a").args(&["late", "5000"]), &["8080"]).await;
    server("a").args(&["late", "300"]).deploy(&platform).await;
    // An http server is not an SDK Worker.
    refused(&platform, server("a").cloister("contract", "ipc"), &[]).await;
}

#[tokio::test]
async fn names_that_do_not_exist() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    refused(&platform, server("a").namespace("nowhere"), &["nowhere"]).await;
    platform.http().get("http://nobody.test/").await.expect_failure(404, 1042);
    platform.http().get("http://no-route.example/").await.expect_failure(404, 1042);
    let missing = platform.api(Method::GET, "/dispatch/namespaces/nowhere", None).await.expect(404);
    assert!(missing.text().contains("nowhere"));
    platform.api(Method::GET, "/dispatch/namespaces/production/scripts/nobody", None).await.expect(404);
    platform.delete(Some("production"), "nobody").await.expect(404);
}

#[tokio::test]
async fn metadata_is_never_dropped_in_silence() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    refused(&platform, server("a").metadata("compatibility_flag", "x"), &["compatibility_flag"]).await;
    refused(&platform, server("a").cloister("contrakt", "http"), &["contrakt"]).await;
    refused(&platform, server("a").cloister("contract", "smtp"), &["smtp", "http"]).await;
    refused(&platform, server("a").cloister("allow", vec!["everything"]), &["everything"]).await;
    refused(&platform, server("a").metadata("main_module", "other"), &["other"]).await;
    refused(&platform, server("a").binding(serde_json::json!({ "type": "d1", "name": "DB" })), &["d1"]).await;
}

#[tokio::test]
async fn configuration_mistakes_name_file_line_key_and_what_is_allowed() {
    let platform = Platform::prepare(config().set("pool", "blank", "3"));
    let said = platform.cli(["serve", "--config", platform.config_file().to_str().unwrap()]).await;
    said.fails_saying(&["cloister.toml:", "pool.blank", "expected one of", "blanks"]);

    let platform = Platform::prepare(config().set("listen", "http", "[\"nonsense\"]"));
    let said = platform.cli(["serve", "--config", platform.config_file().to_str().unwrap()]).await;
    said.fails_saying(&["cloister.toml:", "listen.http"]);

    let said = platform.cli(["serve", "--config", "/no/such/file.toml"]).await;
    said.fails_saying(&["/no/such/file.toml"]);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = platform().await;
    let address = format!("[\"{}\"]", first.address());
    let second = Platform::prepare(config().set("listen", "http", address));
    let said = second.cli(["serve", "--config", second.config_file().to_str().unwrap()]).await;
    said.fails_saying(&[&first.address().to_string(), "in use"]);
}

#[tokio::test]
async fn a_second_supervisor_on_the_same_state_is_refused() {
    let mut first = platform().await;
    server("a").deploy(&first).await;
    let state = format!("{:?}", first.state().to_str().unwrap());
    let second = Platform::prepare(config().set("", "state", state));
    let said = second.cli(["serve", "--config", second.config_file().to_str().unwrap()]).await;
    said.fails_saying(&[first.state().to_str().unwrap()]);
    first.http().get("http://a.test/").await.expect(200);
    first.stop();
}

#[tokio::test]
async fn a_state_folder_that_is_not_writable_is_named() {
    let platform = Platform::prepare(config().set("", "state", "\"/proc/nowhere/state\""));
    let said = platform.cli(["serve", "--config", platform.config_file().to_str().unwrap()]).await;
    said.fails_saying(&["/proc/nowhere/state"]);
}

#[tokio::test]
async fn a_hostile_archive_is_refused() {
    let platform = platform().await;
    server("a").deploy(&platform).await;
    for path in ["../escape", "/absolute", "deep/../../escape"] {
        refused(&platform, server("a").raw_file(path, b"x"), &[]).await;
    }
}
