//! The command line: what people and programs get of it.

use cloister_tests::Platform;
use serde_json::json;

use crate::{config, platform, server_program};

#[tokio::test]
async fn deploys_lists_shows_and_deletes() {
    let platform = platform().await;
    let program = server_program().path;
    let program = program.to_str().unwrap();
    let said = platform.cli([
        "--json",
        "deploy",
        "-n",
        "production",
        "--name",
        "a",
        "--text",
        "GREETING=hi",
        program,
    ]);
    let deployed = said.await.ok().json();
    assert_eq!((&deployed["id"], &deployed["cloister"]["contract"]), (&json!("a"), &json!("http")));
    assert!(deployed["startup_time_ms"].is_number());
    assert_eq!(platform.http().get("http://a.test/env/GREETING").await.expect(200).text(), "hi");

    let list = platform.cli(["--json", "worker", "list", "-n", "production"]).await.ok().json();
    assert_eq!(list[0]["id"], "a");
    let namespaces = platform.cli(["--json", "namespace", "list"]).await.ok().json();
    assert_eq!(namespaces[0]["namespace_name"], "production");
    let one = platform.cli(["--json", "worker", "inspect", "a", "-n", "production"]).await.ok().json();
    let walls = &one["processes"][0]["walls"];
    assert_eq!(walls["enforced"]["capabilities"], 0, "{one}");
    assert!(walls["enforced"]["landlock"]["abi"].as_u64().unwrap() > 0, "{one}");
    let tail = platform.cli(["--json", "worker", "tail", "--no-follow", "a", "-n", "production"]).await.ok();
    assert!(tail.out.contains("invocation"), "{}", tail.out);

    let text = platform.cli(["worker", "list", "-n", "production"]).await.ok();
    assert!(text.out.contains('a') && !text.out.contains('{'), "for people: {}", text.out);

    let _deleted = platform.cli(["worker", "delete", "a", "-n", "production"]).await.ok();
    platform.http().get("http://a.test/").await.expect_failure(404, 1042);
    let gone = platform.cli(["--json", "worker", "get", "a", "-n", "production"]).await;
    assert!(!gone.status.success());
    assert!(gone.err.contains("production/a"), "{}", gone.err);
}

#[tokio::test]
async fn files_and_arguments_with_dashes() {
    let platform = platform().await;
    let folder = platform.folder().join("public");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("index.html"), "by caddy").unwrap();
    let said = platform.cli([
        "deploy",
        "-n",
        "production",
        "--name",
        "site",
        "--files",
        folder.to_str().unwrap(),
        "--arg=file-server",
        "--arg=--root",
        "--arg=/app",
        "--arg=--listen",
        "--arg=:${PORT}",
        "/usr/bin/caddy",
    ]);
    assert!(said.await.ok().out.contains("production/site"));
    assert_eq!(platform.http().get("http://site.test/").await.expect(200).text(), "by caddy");
}

#[tokio::test]
async fn refusals_say_why_and_have_their_exit_status() {
    let platform = platform().await;
    let makefile = concat!(env!("CARGO_MANIFEST_DIR"), "/../Makefile");
    let said = platform.cli(["deploy", "-n", "production", "--name", "a", makefile]).await;
    assert_eq!(said.status.code(), Some(8));
    said.fails_saying(&["ELF"]);
    let said = platform.cli(["deploy", "-n", "production", "--name", "a", "/no/such/program"]).await;
    said.fails_saying(&["/no/such/program"]);
    let program = server_program().path;
    let said = platform.cli(["deploy", "-n", "nowhere", "--name", "a", program.to_str().unwrap()]).await;
    said.fails_saying(&["nowhere"]);
    let said =
        platform.cli(["deploy", "-n", "production", "--name", "a", "--arg=exit", program.to_str().unwrap()]);
    said.await.fails_saying(&["exiting as told"]);
}

#[tokio::test]
async fn without_a_platform() {
    let platform = Platform::prepare(config());
    let said = platform.cli(["worker", "list"]).await;
    assert_eq!(said.status.code(), Some(9));
    said.fails_saying(&["admin.sock"]);
}

#[tokio::test]
async fn policies_are_checked_and_explained() {
    let platform = Platform::prepare(config());
    let file = platform.folder().join("policy.toml");
    let file = file.to_str().unwrap();
    let rule =
        "[[rule]]\nname = \"api\"\nhosts = [\"api.example.com\"]\npaths = [\"/v1/*\"]\naction = \"allow\"\n";
    std::fs::write(file, format!("version = 1\n{rule}")).unwrap();
    let _fine = platform.cli(["policy", "check", file]).await.ok();
    let allowed = platform.cli(["policy", "test", file, "--url", "https://api.example.com/v1/x"]).await.ok();
    assert!(allowed.out.contains("api"), "{}", allowed.out);
    let denied = platform.cli(["policy", "test", file, "--url", "https://api.example.com/v2"]).await;
    assert_eq!(denied.status.code(), Some(11), "{}{}", denied.out, denied.err);

    std::fs::write(file, format!("version = 1\n{rule}acton = \"deny\"\n")).unwrap();
    let said = platform.cli(["policy", "check", file]).await;
    assert_eq!(said.status.code(), Some(3));
    let words = format!("{}{}", said.out, said.err);
    for word in ["policy.toml", "7", "acton", "action"] {
        assert!(words.contains(word), "no {word:?} in {words}");
    }
}

#[tokio::test]
async fn doctor_finds_every_hard_wall_here() {
    let platform = Platform::prepare(config());
    let config = platform.config_file();
    let said = platform.cli(["--json", "doctor", "--config", config.to_str().unwrap()]).await.ok();
    let text = said.json().to_string();
    for wall in ["namespaces", "landlock", "seccomp", "cgroup", "own-uid"] {
        assert!(text.contains(wall), "nothing about {wall}: {text}");
    }
}
