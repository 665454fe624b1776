//! What goes out, by both contracts: the policy decides, the outbound Worker sees, addresses are checked.

use cloister_tests::{Origin, Platform, Upload, tenant};
use serde_json::json;

use crate::{dispatcher, platform, server, worker};

fn rule(name: &str, origin: &Origin, rest: &str) -> String {
    let (host, port) = (origin.address.ip(), origin.address.port());
    // What is handed to an outbound Worker is dialled by that Worker's own policy.
    let networks =
        if rest.contains("outbound") { String::new() } else { format!("networks = [\"{host}/32\"]\n") };
    format!("[[rule]]\nname = \"{name}\"\nhosts = [\"{host}\"]\nports = [{port}]\n{networks}{rest}\n")
}

fn policy(platform: &Platform, rules: &[String]) {
    let text = format!("version = 1\nmode = \"enforce\"\ndefault = \"deny\"\n\n{}", rules.join("\n"));
    std::fs::write(platform.policy_folder().join("production.toml"), text).unwrap();
    // An outbound Worker asks in its own name, as a Worker of the account.
    let account = "version = 1\n[[rule]]\nname = \"loopback\"\nhosts = [\"127.0.0.1\"]\nmethods = [\"GET\"]\n\
                   networks = [\"127.0.0.0/8\"]\naction = \"allow\"\n";
    std::fs::write(platform.policy_folder().join("account.toml"), account).unwrap();
}

/// A platform whose policies are there before it starts.
async fn platform_for(rules: &[String]) -> Platform {
    let mut platform = Platform::prepare(dispatcher::config());
    policy(&platform, rules);
    platform.run().await;
    platform.namespace("production").await;
    platform
}

async fn get(platform: &Platform, path: &str) -> cloister_tests::Answer {
    platform.http().get(&format!("http://a.test{path}")).await
}

#[tokio::test]
async fn nothing_goes_out_without_a_policy() {
    let origin = Origin::start();
    let platform = platform().await;
    worker("a").deploy(&platform).await;
    let answer = get(&platform, &format!("/fetch?{}", origin.url("/x"))).await.expect(599);
    assert!(answer.text().starts_with("Denied"), "{}", answer.text());
    server("b").deploy(&platform).await;
    let answer = platform.http().get(&format!("http://b.test/proxy?{}", origin.url("/x"))).await.expect(200);
    assert!(answer.text().starts_with("HTTP/1.1 403"), "{}", answer.text());
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn rules_allow_by_host_port_method_and_path() {
    let origin = Origin::start();
    let other = Origin::start();
    let platform =
        platform_for(&[rule("api", &origin, "methods = [\"GET\"]\npaths = [\"/v1/*\"]\naction = \"allow\"")])
            .await;
    worker("a").deploy(&platform).await;
    let answer = get(&platform, &format!("/fetch?{}", origin.url("/v1/x?y=z"))).await.expect(200);
    assert_eq!(answer.json()["path"], "/v1/x?y=z");
    for denied in [
        format!("/fetch?{}", origin.url("/v2/x")),
        format!("/fetch?{}", origin.url("/v1/../v2/x")),
        format!("/fetch?{}", other.url("/v1/x")),
        format!("/post?{}", origin.url("/v1/x")),
    ] {
        let answer = get(&platform, &denied).await.expect(599);
        assert!(answer.text().starts_with("Denied"), "{denied}: {}", answer.text());
    }
    assert_eq!(origin.seen().len(), 1);
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn private_addresses_want_a_network_by_name() {
    let origin = Origin::start();
    let port = origin.address.port();
    let open = format!("[[rule]]\nname = \"all\"\nhosts = [\"*\"]\nports = [{port}]\naction = \"allow\"\n");
    let platform = platform_for(&[open]).await;
    worker("a").deploy(&platform).await;
    for host in
        ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "169.254.169.254", "10.0.0.1"]
    {
        let answer = get(&platform, &format!("/fetch?http://{host}:{port}/")).await.expect(599);
        assert!(!answer.text().is_empty(), "{host}");
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn the_outbound_worker_sees_and_changes() {
    let origin = Origin::start();
    let platform = platform_for(&[
        rule("in", &origin, "paths = [\"/stamped/*\"]\naction = \"outbound\""),
        rule("out", &origin, "paths = [\"/plain/*\"]\naction = \"allow\""),
    ])
    .await;
    Upload::account("out", tenant("anything")).deploy(&platform).await;
    let binding = json!({
        "type": "dispatch_namespace", "name": "NS", "namespace": "production",
        "outbound": { "worker": { "service": "out" }, "params": ["tag"] },
    });
    Upload::account("d", tenant("anything")).binding(binding).deploy(&platform).await;
    worker("a").deploy(&platform).await;
    let ask = async |path: &str| {
        let url = format!("http://d.example/dispatch/a/fetch?{}", origin.url(path));
        let request = http::Request::get(url).header("tag", "t1");
        let body = http_body_util::Full::<bytes::Bytes>::default();
        platform.http().send(request.body(body).unwrap()).await
    };
    let stamped = ask("/stamped/x").await.expect(200).json();
    assert_eq!(stamped["headers"]["x-stamp"], "stamped");
    assert_eq!(stamped["headers"]["x-for"], "production/a");
    assert_eq!(stamped["headers"]["x-tag"], "t1");
    // The dispatch call carries the outbound Worker, so it sees what is merely allowed as well…
    let plain = ask("/plain/x").await.expect(200).json();
    assert_eq!(plain["headers"]["x-stamp"], "stamped");
    // …but nothing that the namespace's policy denies.
    let before = origin.seen().len();
    let denied = ask("/other/x").await;
    assert!(denied.text().contains("Denied"), "{}", denied.text());
    assert_eq!(origin.seen().len(), before);
}

#[tokio::test]
async fn redirects_are_not_followed_into_forbidden_places() {
    let origin = Origin::start();
    let platform = platform_for(&[rule("api", &origin, "paths = [\"/redirect\"]\naction = \"allow\"")]).await;
    worker("a").deploy(&platform).await;
    let answer = get(&platform, &format!("/fetch?{}", origin.url("/redirect?/private"))).await;
    assert!(
        answer.status == 302 || answer.text().starts_with("Denied"),
        "{} {}",
        answer.status,
        answer.text()
    );
    assert!(origin.seen().iter().all(|seen| seen.path != "/private"));
}

#[tokio::test]
async fn subrequests_are_counted() {
    let origin = Origin::start();
    let platform = platform_for(&[rule("api", &origin, "action = \"allow\"")]).await;
    worker("a").metadata("limits", json!({ "subrequests": 3 })).deploy(&platform).await;
    for _ in 0..2 {
        let counts = get(&platform, &format!("/many/5?{}", origin.url("/x"))).await.expect(200).json();
        assert_eq!(counts, json!({ "200": 3, "Subrequests": 2 }));
    }
    assert_eq!(origin.seen().len(), 6);
}

#[tokio::test]
async fn the_proxy_of_the_http_contract() {
    let origin = Origin::start();
    let platform = platform_for(&[rule("api", &origin, "paths = [\"/v1/*\"]\naction = \"allow\"")]).await;
    server("a").deploy(&platform).await;
    let answer = get(&platform, &format!("/proxy?{}", origin.url("/v1/x"))).await.expect(200).text();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"path\":\"/v1/x\""), "{answer}");
    let answer = get(&platform, &format!("/proxy?{}", origin.url("/v2/x"))).await.expect(200).text();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(origin.seen().len(), 1);
}

/// A server may ask its proxy port whenever it likes: between calls is no way around the outbound
/// Worker that its calls carry.
#[tokio::test]
async fn between_calls_the_outbound_worker_sees_as_well() {
    let origin = Origin::start();
    let platform = platform_for(&[rule("out", &origin, "paths = [\"/plain/*\"]\naction = \"allow\"")]).await;
    Upload::account("out", tenant("anything")).deploy(&platform).await;
    let binding = json!({
        "type": "dispatch_namespace", "name": "NS", "namespace": "production",
        "outbound": { "worker": { "service": "out" }, "params": ["tag"] },
    });
    Upload::account("d", tenant("anything")).binding(binding).deploy(&platform).await;
    server("a").args(&["early", &origin.url("/plain/early")]).deploy(&platform).await;
    let url = format!("http://d.example/dispatch/a/after?{}", origin.url("/plain/after"));
    platform.http().get(&url).await.expect(200);
    let begin = std::time::Instant::now();
    while !origin.seen().iter().any(|seen| seen.path == "/plain/after") {
        assert!(begin.elapsed().as_secs() < 10, "nothing came:\n{}", platform.log());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let seen = origin.seen();
    assert!(seen.iter().any(|seen| seen.path == "/plain/early"), "{seen:?}");
    for seen in seen {
        assert!(seen.headers.contains_key("x-stamp"), "{} went by itself", seen.path);
    }
}

#[tokio::test]
async fn connect_wants_a_rule_for_https() {
    let (origin, _) = Origin::start_tls("origin.test");
    let platform = platform_for(&[rule("tls", &origin, "schemes = [\"https\"]\naction = \"allow\"")]).await;
    server("a").deploy(&platform).await;
    let answer = get(&platform, &format!("/connect?{}", origin.address)).await.expect(200).text();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let other = Origin::start();
    let answer = get(&platform, &format!("/connect?{}", other.address)).await.expect(200).text();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_policy_is_read_again_when_it_changes_and_a_bad_one_is_refused_whole() {
    let origin = Origin::start();
    let platform = platform_for(&[]).await;
    worker("a").deploy(&platform).await;
    let path = format!("/fetch?{}", origin.url("/x"));
    get(&platform, &path).await.expect(599);
    policy(&platform, &[rule("api", &origin, "action = \"allow\"")]);
    let until = async |status: u16| {
        let begin = std::time::Instant::now();
        while get(&platform, &path).await.status.as_u16() != status {
            assert!(begin.elapsed().as_secs() < 10, "the policy was not read again:\n{}", platform.log());
        }
    };
    until(200).await;
    let file = platform.policy_folder().join("production.toml");
    std::fs::write(&file, "version = 1\nmode = \"enforce\"\ndefault = \"perhaps\"\n").unwrap();
    let begin = std::time::Instant::now();
    while !platform.log().contains("perhaps") {
        assert!(begin.elapsed().as_secs() < 10, "nothing was said about the bad file:\n{}", platform.log());
        get(&platform, &path).await.expect(200);
    }
    get(&platform, &path).await.expect(200);
}
