//! The proxy port: plain HTTP.

use super::*;

#[tokio::test]
async fn absolute_uris_are_forwarded() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let head = format!(
        "GET http://a.test:{}/x HTTP/1.1\r\nhost: other.test\r\nproxy-connection: keep-alive\r\nconnection: close\r\n\r\n",
        origin.port()
    );
    let answer = through(&rig, &head).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains(&format!("GET /x connection=1\nhost: a.test:{}\nbody=", origin.port())),
        "{answer}"
    );
    assert!(!answer.contains("cloister-egress"), "{answer}");
}

#[tokio::test]
async fn an_answer_of_an_older_http_is_one_like_others() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        head_of(&mut stream).await;
        stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    });
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let head = format!("GET http://a.test:{port}/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = through(&rig, &head).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn an_absolute_https_uri_is_fetched_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test"], folder.path());
    let origin = Origin::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls));
    let config = EgressConfig { extra_ca: Some(ca), ..EgressConfig::default() };
    let policy = format!("{OPEN}paths = [\"/v1/*\"]\nschemes = [\"https\"]");
    let rig = Rig::with(&policy, &[("good.test", &["127.0.0.1"])], config);
    let head = format!(
        "GET https://good.test:{}/v1/x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        origin.port()
    );
    assert!(through(&rig, &head).await.contains("GET /v1/x connection=1"));
}

#[tokio::test]
async fn refusals_name_the_rule() {
    let policy = "[[rule]]\nname = \"no\"\nhosts = [\"evil.test\"]\naction = \"deny\"\n".to_owned() + OPEN;
    let rig = Rig::new(&policy, &[("ten.test", &["10.0.0.1"])]);
    for (uri, status, kind, rule) in [
        ("http://evil.test/", 403, "denied", "\"no\""),
        ("http://ten.test/", 403, "address_denied", "\"open\""),
        ("http://unknown.test/", 502, "resolve_failed", "null"),
        ("http://127.0.0.1:1/", 502, "network_failed", "null"),
        ("ftp://a.test/", 400, "invalid_request", "null"),
        ("/origin-form", 400, "invalid_request", "null"),
    ] {
        let answer =
            through(&rig, &format!("GET {uri} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{uri}: {answer}");
        assert!(answer.contains(&format!("\r\ncloister-egress: {kind}\r\n")), "{uri}: {answer}");
        assert!(answer.contains(&format!("\"rule\":{rule}")), "{uri}: {answer}");
    }
}

#[tokio::test]
async fn smuggling_ends_at_the_filter() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let uri = format!("http://a.test:{}/", origin.port());
    let hidden = "GET http://a.test/hidden HTTP/1.1\r\nhost: a\r\n\r\n";
    for (fields, body) in [
        ("content-length: 1\r\ncontent-length: 2", "x"),
        ("content-length: +1", "x"),
        ("content-length: 1, 1", "x"),
        ("transfer-encoding: xchunked", "0\r\n\r\n"),
        ("transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ("transfer-encoding : chunked", "0\r\n\r\n"),
        ("x: a\r\n b", ""),
        ("x\0: a", ""),
    ] {
        let answer =
            through(&rig, &format!("POST {uri} HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}{hidden}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?}: {answer}");
    }
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());

    // Both lengths: the chunks count, what is sent on is framed anew, and the connection ends.
    for both in
        ["content-length: 5\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 5"]
    {
        let head = format!("POST {uri} HTTP/1.1\r\nhost: a\r\n{both}\r\n\r\n0\r\n\r\n{hidden}");
        let answer = through(&rig, &head).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    let seen = origin.requests();
    assert_eq!(seen.len(), 2);
    assert!(
        seen.iter().all(|text| text.ends_with("body=") && !text.contains("content-length: 5")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn heads_have_an_end() {
    let rig = Rig::new(OPEN, &[]);
    let long = format!("GET http://a.test/ HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(70 << 10));
    let mut stream = proxy(&rig, caller).await;
    let (mut read, mut write) = stream.split();
    // The answer may come, and the connection close, before all is written.
    let (_, answer) = tokio::join!(write.write_all(long.as_bytes()), head_of(&mut read));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!("GET http://a.test/ HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(129));
    assert!(through(&rig, &many).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_websocket_passes_through_the_proxy() {
    let address = echo_after_upgrade(None).await;
    let rig = Rig::new(OPEN, &[("ws.test", &["127.0.0.1"])]);
    let mut stream = proxy(&rig, caller).await;
    let head = format!(
        "GET http://ws.test:{}/ HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        address.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = head_of(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    stream.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
}

#[tokio::test]
async fn reserved_names_are_bindings_and_never_leave() {
    let rig = Rig::new(OPEN, &[]);
    let head = |uri: &str| format!("GET {uri} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let answer = through(&rig, &head("http://AUTH.cloister/x")).await;
    assert!(answer.ends_with(r#"production/shop Service { binding: "auth" } /x"#), "{answer}");
    let answer = through(&rig, &head("http://shop-7.dispatcher.cloister/")).await;
    assert!(answer.ends_with(r#"Dispatch { binding: "dispatcher", worker: "shop-7" } /"#), "{answer}");
    assert!(through(&rig, &head("http://missing.cloister/")).await.contains("no Worker for this request"));
    for uri in ["http://cloister/", "http://a.b.c.cloister/", "http://auth.cloister:8080/"] {
        assert!(through(&rig, &head(uri)).await.starts_with("HTTP/1.1 400 "), "{uri}");
    }
    assert_eq!(rig.names.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_worker_cannot_hold_more_than_its_share() {
    let address = echo_after_upgrade(None).await;
    let two = std::num::NonZeroU32::new(2).unwrap();
    let config = EgressConfig { worker_requests: two, worker_connections: two, ..EgressConfig::default() };
    let rig = Rig::with(OPEN, &[("ws.test", &["127.0.0.1"])], config);
    let uri = format!("http://ws.test:{}/", address.port());
    let hold = async || {
        let mut req = request("GET", &uri);
        req.headers_mut().insert("connection", "upgrade".parse().unwrap());
        req.headers_mut().insert("upgrade", "websocket".parse().unwrap());
        rig.egress.fetch(&caller(), req).await.unwrap()
    };
    let (mut one, mut other) = (hold().await, hold().await);
    let held = (open(&mut one), open(&mut other));
    drop((one, other));
    assert!(matches!(rig.get(&uri).await, Err(EgressError::TooMany { limit: 2 })));
    drop(held);
    while rig.egress.decisions().len() < 3 {
        tokio::task::yield_now().await;
    }
    let refused = rig.get("http://10.0.0.1/").await.unwrap_err();
    assert!(matches!(refused, EgressError::Address { .. }), "{refused}");

    // An answer shows that a connection is being served.
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut stream = proxy(&rig, caller).await;
        stream.write_all(b"GET http://10.0.0.1/ HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 403 "));
        served.push(stream);
    }
    let mut third = proxy(&rig, caller).await;
    let mut end = Vec::new();
    third.read_to_end(&mut end).await.unwrap();
    assert!(end.is_empty());
}
