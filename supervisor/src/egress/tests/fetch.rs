//! `Egress::fetch`: verdicts, addresses, what leaves and what comes back.

use super::*;

#[tokio::test]
async fn what_is_allowed_arrives_in_one_form() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("api.test", &["127.0.0.1"])]);
    let mut req = request("POST", &format!("http://API.Test.:{}/a?q=1", origin.port()));
    *req.body_mut() = Body::full("hello");
    let headers = req.headers_mut();
    headers.insert("host", "evil.test".parse().unwrap());
    headers.insert("connection", "x-hop, keep-alive".parse().unwrap());
    headers.insert("x-hop", "1".parse().unwrap());
    headers.insert("te", "trailers".parse().unwrap());
    headers.insert("upgrade", "h2c".parse().unwrap());
    headers.insert("proxy-authorization", "x".parse().unwrap());
    headers.insert("x-kept", "1".parse().unwrap());
    let text = rig.fetch(&caller(), req).await.unwrap().text();
    let expected = format!(
        "POST /a?q=1 connection=1\nx-kept: 1\nhost: api.test:{}\ncontent-length: 5\nbody=hello",
        origin.port()
    );
    assert_eq!(text, expected);
    let decision = rig.egress.decisions().pop().unwrap();
    assert_eq!((decision.verdict, &*decision.rule, decision.status), ("allow", "open", Some(200)));
    assert_eq!((&*decision.path, decision.bytes), ("/a", text.len() as u64));
    assert_eq!((&*decision.worker, decision.addr), ("production/shop", Some(origin.address.ip())));
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_whatever_the_method() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    for method in ["GET", "DELETE", "POST"] {
        let mut req = request(method, &format!("http://a.test:{}/", origin.port()));
        let frames = [Ok::<_, crate::body::BodyError>(http_body::Frame::data("hello".into()))];
        *req.body_mut() = Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
        let text = rig.fetch(&caller(), req).await.unwrap().text();
        assert!(text.ends_with("\nbody=hello"), "{method}: {text}");
    }
}

#[tokio::test]
async fn a_denied_name_is_not_even_resolved() {
    let rig = Rig::new("", &[("evil.test", &["127.0.0.1"])]);
    let error = rig.get("http://data-to-leak.evil.test/").await.unwrap_err();
    assert!(matches!(error, EgressError::Denied { .. }), "{error}");
    assert_eq!(rig.names.asked.load(Ordering::Relaxed), 0);
    assert_eq!(rig.decided(), "deny default");
}

#[tokio::test]
async fn addresses_that_are_not_global_are_refused_whatever_the_name() {
    let policy = "[[rule]]\nname = \"all\"\nhosts = [\"*\"]\naction = \"allow\"";
    let rig = Rig::new(
        policy,
        &[
            ("metadata.test", &["169.254.169.254"]),
            ("loop.test", &["127.0.0.1"]),
            ("ten.test", &["10.0.0.1", "192.168.1.1"]),
            ("six.test", &["fd00:ec2::254", "::1"]),
            ("mapped.test", &["::ffff:169.254.169.254"]),
            ("nat64.test", &["64:ff9b::a9fe:a9fe"]),
            ("teredo.test", &["2001:0:1::1"]),
        ],
    );
    for host in [
        "metadata.test",
        "loop.test",
        "ten.test",
        "six.test",
        "mapped.test",
        "nat64.test",
        "teredo.test",
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "169.254.169.254",
        "100.100.100.200",
        "localhost.",
    ] {
        let error = rig.get(&format!("http://{host}/latest/meta-data/")).await.unwrap_err();
        // `localhost` has no address in the table.
        let resolves = host != "localhost.";
        assert_eq!(matches!(error, EgressError::Address { .. }), resolves, "{host}: {error}");
        assert_eq!(error.status(), if resolves { 403 } else { 502 });
    }
    assert!(rig.egress.decisions().iter().all(|decision| decision.addr.is_none()));
}

#[tokio::test]
async fn the_address_that_was_judged_is_dialled_and_no_other() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("mixed.test", &["10.0.0.1", "127.0.0.1"])]);
    rig.get(&format!("http://mixed.test:{}/", origin.port())).await.unwrap().text();
    assert_eq!(rig.names.asked.load(Ordering::Relaxed), 1);
    assert_eq!(rig.egress.decisions()[0].addr, Some(origin.address.ip()));
}

#[tokio::test]
async fn the_hosts_own_public_address_is_refused() {
    let config = EgressConfig { own_addresses: vec!["8.8.4.4".parse().unwrap()], ..EgressConfig::default() };
    let policy = "[[rule]]\nname = \"all\"\nhosts = [\"*\"]\naction = \"allow\"";
    let rig = Rig::with(policy, &[("me.test", &["8.8.4.4"])], config);
    for host in ["me.test", "8.8.4.4", "0x08080404"] {
        let error = rig.get(&format!("http://{host}/")).await.unwrap_err();
        assert!(error.to_string().contains("this host itself"), "{error}");
    }
}

#[tokio::test]
async fn redirects_come_back_to_the_worker() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let seen = rig.get(&format!("http://a.test:{}/redirect", origin.port())).await.unwrap();
    assert_eq!(seen.head.status, StatusCode::FOUND);
    assert_eq!(seen.head.headers["location"], "http://169.254.169.254/");
    assert_eq!(origin.requests().len(), 1);
    assert!(rig.get("http://169.254.169.254/").await.is_err());
}

#[tokio::test]
async fn what_a_server_says_about_the_connection_ends_here() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let seen = rig.get(&format!("http://a.test:{}/forged", origin.port())).await.unwrap();
    let mut left: Vec<_> = seen.head.headers.keys().map(http::HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-length", "date"], "neither of the connection nor of the platform");
}

#[tokio::test]
async fn rules_change_headers_with_the_workers_own_secrets() {
    let origin = Origin::start().await;
    let policy = format!(
        r#"{OPEN}
        set_headers = {{ authorization = "Bearer ${{secret:KEY}}", x-set = "1" }}
        remove_headers = ["cookie"]"#
    );
    let rig = Rig::new(&policy, &[("a.test", &["127.0.0.1"])]);
    let uri = format!("http://a.test:{}/", origin.port());
    let error = rig.get(&uri).await.unwrap_err();
    assert!(error.to_string().contains("secret `KEY`"), "{error}");
    assert!(origin.requests().is_empty());

    rig.egress.lend_secrets(Arc::new(|worker: &WorkerId, name: &str| Some(format!("{worker}-{name}"))));
    let mut req = request("GET", &uri);
    req.headers_mut().insert("cookie", "a=b".parse().unwrap());
    req.headers_mut().append("authorization", "mine".parse().unwrap());
    let text = rig.fetch(&caller(), req).await.unwrap().text();
    assert!(text.contains("\nauthorization: Bearer production/shop-KEY\n"), "{text}");
    assert!(text.contains("\nx-set: 1\n") && !text.contains("cookie") && !text.contains("mine"), "{text}");
    assert!(!format!("{:?}", rig.egress.decisions()).contains("Bearer"));
}

#[tokio::test]
async fn a_policy_with_paths_sends_the_path_it_judged() {
    let origin = Origin::start().await;
    let policy = format!("{OPEN}\npaths = [\"/v1/*\"]");
    let rig = Rig::new(&policy, &[("a.test", &["127.0.0.1"])]);
    let uri = |path: &str| format!("http://a.test:{}{path}", origin.port());
    let text = rig.get(&uri("//v1/x/../%61?q=%2e%2e")).await.unwrap().text();
    assert!(text.starts_with("GET /v1/a?q=%2e%2e "), "{text}");
    for path in
        ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/..%2fadmin", "/v1//../../admin", "/v1/..;/admin", "/v1"]
    {
        assert!(matches!(rig.get(&uri(path)).await, Err(EgressError::Denied { .. })), "{path}");
    }
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_response_is_cut_at_the_rules_limit() {
    let origin = Origin::start().await;
    let policy = format!("{OPEN}\nlimits = {{ response_bytes = \"2KiB\" }}");
    let rig = Rig::new(&policy, &[("a.test", &["127.0.0.1"])]);
    let uri = |path: &str| format!("http://a.test:{}{path}", origin.port());
    let error = rig.get(&uri("/long")).await.unwrap_err();
    assert!(matches!(error, EgressError::ResponseTooLarge { bytes: 4096, limit: 2048, .. }), "{error}");
    let seen = rig.get(&uri("/endless")).await.unwrap();
    assert!(matches!(seen.body, Err(BodyError::TooLarge(2048))));
    assert_eq!(rig.egress.decisions().last().unwrap().bytes, 2048);
    assert!(rig.get(&uri("/short")).await.is_ok());
    let head = rig.fetch(&caller(), request("HEAD", &uri("/long"))).await.unwrap();
    assert_eq!(head.head.headers["content-length"], "4096");
}

#[tokio::test]
async fn a_rules_rate_holds_each_worker_by_itself() {
    let origin = Origin::start().await;
    let policy = format!("{OPEN}\nlimits = {{ requests_per_second = 2 }}");
    let rig = Rig::new(&policy, &[("a.test", &["127.0.0.1"])]);
    let uri = format!("http://a.test:{}/", origin.port());
    let mut limited = 0;
    for _ in 0..20 {
        limited +=
            usize::from(matches!(rig.get(&uri).await, Err(EgressError::RateLimited { per_second: 2, .. })));
    }
    assert!(limited >= 10, "{limited}");
    let other = Caller { worker: WorkerId { name: "other".into(), ..caller().worker }, ..caller() };
    assert!(rig.fetch(&other, request("GET", &uri)).await.is_ok());
}

#[tokio::test]
async fn every_question_costs_a_subrequest() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let caller = Caller { subrequests: Arc::new(Budget::new(Some(2))), ..caller() };
    let uri = format!("http://a.test:{}/", origin.port());
    assert!(rig.fetch(&caller, request("GET", &uri)).await.is_ok());
    assert!(rig.fetch(&caller, request("GET", "http://169.254.169.254/")).await.is_err());
    let error = rig.fetch(&caller, request("GET", &uri)).await.unwrap_err();
    assert!(matches!(error, EgressError::Subrequests(_)), "{error}");
    assert_eq!(origin.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_is_shared_only_within_one_version_of_one_worker() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"]), ("b.test", &["127.0.0.1"])]);
    let get = async |caller: Caller, host: &str| {
        let uri = format!("http://{host}:{}/", origin.port());
        let text = rig.fetch(&caller, request("GET", &uri)).await.unwrap().text();
        text.lines().next().unwrap().rsplit('=').next().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(get(caller(), "a.test").await, 1);
    assert_eq!(get(caller(), "a.test").await, 1);
    assert_eq!(get(Caller { version: "v2".into(), ..caller() }, "a.test").await, 2);
    let other = WorkerId { name: "other".into(), ..caller().worker };
    assert_eq!(get(Caller { worker: other, ..caller() }, "a.test").await, 3);
    assert_eq!(get(caller(), "b.test").await, 4);
    assert_eq!(get(caller(), "a.test").await, 1);
}

#[tokio::test]
async fn a_made_up_content_length_cannot_hide_a_request() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let uri = format!("http://a.test:{}/", origin.port());
    let mut req = request("GET", &uri);
    req.headers_mut().insert("content-length", "40".parse().unwrap());
    assert!(!rig.fetch(&caller(), req).await.unwrap().text().contains("content-length"));

    let mut req = request("POST", &uri);
    *req.body_mut() = Body::full("GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n");
    req.headers_mut().insert("content-length", "1".parse().unwrap());
    let text = rig.fetch(&caller(), req).await.unwrap().text();
    assert!(text.contains("content-length: 33") && text.contains("body=GET /hidden"), "{text}");

    let streamed = || {
        let piece = Ok::<_, BodyError>(hyper::body::Frame::data(Bytes::from_static(b"12345")));
        Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter([piece])))
    };
    let mut req = request("POST", &uri);
    *req.body_mut() = streamed();
    req.headers_mut().append("content-length", "5".parse().unwrap());
    req.headers_mut().append("content-length", "3".parse().unwrap());
    assert!(matches!(rig.fetch(&caller(), req).await, Err(EgressError::Invalid(_))));

    let mut req = request("POST", &uri);
    *req.body_mut() = streamed();
    req.headers_mut().insert("transfer-encoding", "gzip, chunked".parse().unwrap());
    let text = rig.fetch(&caller(), req).await.unwrap().text();
    assert!(text.contains("transfer-encoding: chunked\n") && text.contains("body=12345"), "{text}");
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test]
async fn https_needs_a_certificate_for_the_name_that_was_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test"], folder.path());
    let origin = Origin::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls));
    let names: &[(&str, &[&str])] = &[("good.test", &["127.0.0.1"]), ("bad.test", &["127.0.0.1"])];
    let config = EgressConfig { extra_ca: Some(ca), ..EgressConfig::default() };
    let trusting = Rig::with(OPEN, names, config);
    let uri = |host: &str| format!("https://{host}:{}/", origin.port());
    assert!(trusting.get(&uri("good.test")).await.unwrap().text().starts_with("GET / "));
    assert!(trusting.get(&uri("bad.test")).await.unwrap_err().to_string().contains("TLS handshake"));
    let strict = Rig::new(OPEN, names);
    assert!(strict.get(&uri("good.test")).await.unwrap_err().to_string().contains("TLS handshake"));
}

#[tokio::test]
async fn report_mode_lets_pass_but_not_to_private_addresses() {
    let origin = Origin::start().await;
    let rig = Rig::new("mode = \"report\"", &[("a.test", &["127.0.0.1"])]);
    let error = rig.get(&format!("http://a.test:{}/", origin.port())).await.unwrap_err();
    assert!(matches!(error, EgressError::Address { .. }), "{error}");
    assert_eq!(rig.decided(), "deny default");
    let unreachable = rig.get("http://nowhere.test/").await.unwrap_err();
    assert!(matches!(unreachable, EgressError::Resolve { .. }), "{unreachable}");
    assert_eq!(rig.decided(), "report default");
}

#[tokio::test]
async fn a_websocket_passes() {
    let address = echo_after_upgrade(None).await;
    let rig = Rig::new(OPEN, &[("ws.test", &["127.0.0.1"])]);
    let mut req = request("GET", &format!("http://ws.test:{}/", address.port()));
    req.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    req.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let mut response = rig.egress.fetch(&caller(), req).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut socket = open(&mut response);
    socket.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    socket.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
}

#[tokio::test]
async fn a_websocket_is_counted_and_cut_at_the_rules_limit() {
    let address = echo_after_upgrade(None).await;
    let rig = Rig::new(&format!("{OPEN}limits = {{ response_bytes = 10 }}"), &[("ws.test", &["127.0.0.1"])]);
    let mut req = request("GET", &format!("http://ws.test:{}/", address.port()));
    req.headers_mut().insert("connection", "Upgrade".parse().unwrap());
    req.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    let mut response = rig.egress.fetch(&caller(), req).await.unwrap();
    let mut socket = open(&mut response);
    let mut echoed = [0; 8];
    socket.write_all(b"12345678").await.unwrap();
    socket.read_exact(&mut echoed).await.unwrap();
    assert!(rig.egress.decisions().is_empty());
    socket.write_all(b"90123").await.unwrap();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    let decision = rig.egress.decisions().pop().unwrap();
    assert_eq!((decision.status, decision.bytes), (Some(101), 8));
    assert_eq!(decision.reason.unwrap(), "more than 10 bytes came from the server");
}

#[tokio::test]
async fn what_makes_no_sense_is_said_to() {
    let rig = Rig::new(OPEN, &[]);
    for uri in [
        "/relative",
        "ftp://a.test/",
        "http://u:p@a.test/",
        "http://a.test:0/",
        "http://a..test/",
        "http://x.cloister/",
    ] {
        let error = rig.get(uri).await.unwrap_err();
        assert!(matches!(error, EgressError::Invalid(_)), "{uri}: {error}");
    }
}

/// Judged as any request, and answered by a connection, it would be a way past every rule.
#[tokio::test]
async fn a_fetch_is_no_tunnel() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    let uri = format!("http://a.test:{}/pub/x", origin.port());
    let error = rig.egress.fetch(&caller(), request("CONNECT", &uri)).await.unwrap_err();
    assert!(matches!(error, EgressError::Invalid(_)), "{error}");
    assert!(origin.requests().is_empty(), "{:?}", origin.requests());
    assert_eq!(rig.decided(), "deny default");
}

#[tokio::test]
async fn the_path_is_sent_as_it_was_asked_for() {
    let origin = Origin::start().await;
    let rig = Rig::new(OPEN, &[("a.test", &["127.0.0.1"])]);
    for (asked, sent) in
        [("", "/"), ("/", "/"), ("?q", "/?q"), ("//a/./b?", "//a/./b?"), ("/%2e?q#f", "/%2e?q")]
    {
        let text = rig.get(&format!("http://a.test:{}{asked}", origin.port())).await.unwrap().text();
        assert_eq!(text.split(' ').nth(1), Some(sent), "{asked:?}");
    }
}
