//! The proxy port: CONNECT.

use rustls::pki_types::ServerName;

use super::*;

/// A TLS client that trusts `ca`, through a tunnel to `authority`, asking for `sni`.
async fn over_tls(
    rig: &Rig,
    authority: &str,
    sni: &'static str,
    ca: &Path,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let stream = tunnel(rig, authority).await?;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(ca).unwrap();
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(sni).unwrap();
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

/// A tunnel, or the answer to CONNECT.
async fn tunnel(rig: &Rig, authority: &str) -> Result<TcpStream, String> {
    let mut stream = proxy(rig, caller).await;
    let head = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = head_of(&mut stream).await;
    if answer.starts_with("HTTP/1.1 200 ") { Ok(stream) } else { Err(answer) }
}

/// Waits for the decision that ends last.
async fn decided(rig: &Rig, count: usize) -> super::super::Decision {
    while rig.egress.decisions().len() < count {
        tokio::task::yield_now().await;
    }
    rig.egress.decisions().pop().unwrap()
}

const NAMES: &[(&str, &[&str])] =
    &[("good.test", &["127.0.0.1"]), ("also.good.test", &["127.0.0.1"]), ("ten.test", &["10.0.0.1"])];

#[tokio::test]
async fn tls_to_the_host_that_was_named_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test"], folder.path());
    let origin = Origin::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls));
    let rig = Rig::new(OPEN, NAMES);
    let mut stream = over_tls(&rig, &format!("GOOD.test:{}", origin.port()), "good.test", &ca).await.unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nhost: good.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("GET /x connection=1"), "{answer}");
    drop(stream);
    let decision = decided(&rig, 1).await;
    assert_eq!((decision.verdict, &*decision.method, decision.status), ("allow", "CONNECT", Some(200)));
    assert!(decision.bytes > 100 && decision.addr == Some(origin.address.ip()), "{decision:?}");
}

#[tokio::test]
async fn tls_to_another_host_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test", "also.good.test"], folder.path());
    let origin = Origin::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls));
    let rig = Rig::new(OPEN, NAMES);
    let authority = format!("good.test:{}", origin.port());
    for sni in ["also.good.test", "127.0.0.1"] {
        let error = over_tls(&rig, &authority, sni, &ca).await.unwrap_err();
        assert!(error.to_lowercase().contains("denied"), "{error}");
        let decision = decided(&rig, 1).await;
        assert_eq!(decision.verdict, "deny");
        assert!(decision.reason.unwrap().contains("CONNECT is to good.test"));
    }
    assert!(origin.requests().is_empty());
}

#[tokio::test]
async fn an_address_needs_no_server_name_but_tolerates_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test", "127.0.0.1"], folder.path());
    let origin = Origin::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls));
    let rig = Rig::new(OPEN, NAMES);
    let authority = format!("127.0.0.1:{}", origin.port());
    assert!(over_tls(&rig, &authority, "127.0.0.1", &ca).await.is_ok());
    assert!(over_tls(&rig, &authority, "good.test", &ca).await.is_err());
}

#[tokio::test]
async fn what_is_not_tls_does_not_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let rig = Rig::new(OPEN, NAMES);
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[22, 3, 1, 0xff, 0xff, 1], &[22, 3, 1, 0, 0]]
    {
        let mut stream = tunnel(&rig, &format!("good.test:{port}")).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 49]);
        let mut arrived = Vec::new();
        server.read_to_end(&mut arrived).await.unwrap();
        assert!(arrived.is_empty());
    }
}

#[tokio::test]
async fn what_a_tunnel_would_hide_is_refused() {
    let policy = r#"
        [[rule]]
        name = "no-port"
        hosts = ["*"]
        ports = [22]
        action = "deny"
        [[rule]]
        name = "by-path"
        hosts = ["good.test"]
        paths = ["/v1/*"]
        action = "allow"
        networks = ["127.0.0.0/8"]
        [[rule]]
        name = "rest"
        hosts = ["ten.test", "also.good.test", "10.0.0.1"]
        action = "allow"
    "#;
    let rig = Rig::new(policy, NAMES);
    for (authority, status, text) in [
        ("good.test:22", 403, "rule `no-port`"),
        ("good.test:443", 403, "hides the request from the rule's `paths`"),
        ("unknown.test:443", 403, "rule `default`"),
        ("ten.test:443", 403, "a private address"),
        ("10.0.0.1:443", 403, "a private address"),
        ("0xa.1:443", 403, "a private address"),
        ("[::ffff:10.0.0.1]:443", 403, "a private address"),
        ("also.good.test:443", 403, "a loopback address"),
        ("x.cloister:443", 400, "reserved"),
    ] {
        let mut stream = proxy(&rig, caller).await;
        let head = format!("CONNECT {authority} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{authority}: {answer}");
        assert!(answer.contains(text), "{authority}: {answer}");
    }
}

#[tokio::test]
async fn an_outbound_worker_is_not_passed_by() {
    use crate::egress::OutboundCall;

    let rig = Rig::new(OPEN, NAMES);
    let worker = WorkerId { namespace: None, name: "out".into() };
    let carrying = move || Caller {
        outbound: Some(OutboundCall { worker: worker.clone(), params: Vec::new() }),
        ..caller()
    };
    let mut stream = proxy(&rig, carrying).await;
    stream.write_all(b"CONNECT good.test:443 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("outbound Worker"), "{answer}");
}

#[tokio::test]
async fn a_tunnel_ends_at_the_rules_limit() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test"], folder.path());
    let origin = Origin::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(tls));
    let rig = Rig::new(&format!("{OPEN}limits = {{ response_bytes = \"64KiB\" }}"), NAMES);
    let mut stream = over_tls(&rig, &format!("good.test:{}", origin.port()), "good.test", &ca).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: good.test\r\n\r\n").await.unwrap();
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received).await;
    assert!(received.len() <= 64 << 10, "{}", received.len());
    let decision = decided(&rig, 1).await;
    assert!(decision.bytes <= 64 << 10);
    assert!(decision.reason.unwrap().contains("more than 65536 bytes"));
}

#[tokio::test]
async fn a_secure_websocket_passes_through_a_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let (tls, ca) = certificate(&["good.test"], folder.path());
    let address = echo_after_upgrade(Some(tls)).await;
    let rig = Rig::new(OPEN, NAMES);
    let mut stream =
        over_tls(&rig, &format!("good.test:{}", address.port()), "good.test", &ca).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    assert!(head_of(&mut stream).await.starts_with("HTTP/1.1 101 "));
    stream.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
}
