//! Servers from Debian packages, deployed as they are. docs/WORKER-CONTRACT.md says what each needs.

use cloister_tests::{Platform, Upload};

use crate::{config, platform};

const PAGE: (&str, &[u8]) = ("index.html", b"<h1>hello from a file</h1>");

const NGINX: &[u8] = b"daemon off; master_process off; pid /tmp/nginx.pid; error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 127.0.0.1:8080; root /app; }
}";

const LIGHTTPD: &[u8] = b"server.port = 8080
server.bind = \"127.0.0.1\"
server.document-root = \"/app\"
index-file.names = ( \"index.html\" )
mimetype.assign = ( \".html\" => \"text/html\" )";

fn site(name: &str, program: &str) -> Upload {
    Upload::user("production", name, program).http()
}

/// Deploys it, and asks for the page twice and for one that is not there.
async fn serves(platform: &Platform, name: &str, upload: Upload) {
    upload.deploy(platform).await;
    for _ in 0..2 {
        let answer = platform.http().get(&format!("http://{name}.test/index.html")).await.expect(200);
        assert_eq!(answer.body, PAGE.1, "{name}");
    }
    let answer = platform.http().get(&format!("http://{name}.test/missing")).await.expect(404);
    assert_eq!(answer.code(), None, "{name}: the server's own 404 is passed on");
}

#[tokio::test]
async fn nginx() {
    let platform = platform().await;
    let upload = site("nginx", "/usr/sbin/nginx").args(&["-c", "/app/nginx.conf"]);
    serves(&platform, "nginx", upload.files(&[PAGE, ("nginx.conf", NGINX)])).await;
}

#[tokio::test]
async fn lighttpd() {
    let platform = platform().await;
    let upload = site("lighttpd", "/usr/sbin/lighttpd").args(&["-D", "-f", "/app/lighttpd.conf"]);
    serves(&platform, "lighttpd", upload.files(&[PAGE, ("lighttpd.conf", LIGHTTPD)])).await;
}

#[tokio::test]
async fn caddy() {
    let platform = platform().await;
    let upload =
        site("caddy", "/usr/bin/caddy").args(&["file-server", "--root", "/app", "--listen", ":${PORT}"]);
    serves(&platform, "caddy", upload.files(&[PAGE])).await;
}

#[tokio::test]
async fn busybox_forks_for_each_request() {
    // The operator has to grant what a Worker asks for beyond the base.
    let mut platform = Platform::prepare(config().set("sandbox", "policy", "\"sandbox.toml\""));
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/sandbox/default.toml");
    let grant = "[[grant]]\nnamespace = \"production\"\nworkers = [\"busybox*\"]\nallow = [\"processes\"]\n";
    let policy = format!("{}\n{grant}", std::fs::read_to_string(shipped).unwrap());
    std::fs::write(platform.folder().join("sandbox.toml"), policy).unwrap();
    platform.run().await;
    platform.namespace("production").await;
    let upload = site("busybox", "/bin/busybox").args(&["httpd", "-f", "-p", "${PORT}", "-h", "/app"]);
    serves(&platform, "busybox", upload.files(&[PAGE]).cloister("allow", vec!["processes"])).await;
}

#[tokio::test]
async fn python() {
    let platform = platform().await;
    let upload = site("python", "/usr/bin/python3.11");
    let upload = upload.args(&["-m", "http.server", "${PORT}", "--directory", "/app"]);
    serves(&platform, "python", upload.files(&[PAGE])).await;
}
