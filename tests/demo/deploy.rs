//! The Workers of the demo.

use cloister_tests::{Platform, Upload, tenant};
use serde_json::json;

use crate::show::Show;

const NGINX: &[u8] = b"daemon off; master_process off; pid /tmp/nginx.pid; error_log stderr;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 127.0.0.1:8080; root /app; }
}";

/// Creates the namespaces and deploys every Worker.
pub(crate) async fn everything(platform: &Platform, show: &Show) {
    show.fact("supervisor", format!("pid {}, http://{}", platform.pid(), platform.address()));
    show.fact("launcher", format!("pid {}, the only privileged process", platform.launcher()));
    for namespace in ["staging", "production"] {
        platform.namespace(namespace).await;
        show.fact("namespace", namespace);
    }
    show.title("Deploys: each binary is checked, started behind its walls, and asked, before its name works");
    let one = async |what: &str, upload: Upload| {
        let size = upload.size();
        let result = upload.deploy(platform).await;
        let start = result["startup_time_ms"].to_string();
        show.fact(what, format!("{:.1} MiB, first start {start} ms", size as f64 / f64::from(1 << 20)));
    };
    one("outbound stamp", Upload::account("stamp", tenant("stamp"))).await;
    let customers = json!({
        "type": "dispatch_namespace", "name": "CUSTOMERS", "namespace": "production",
        "outbound": { "worker": { "service": "stamp" }, "params": ["customer"] },
    });
    one("dispatch router", Upload::account("router", tenant("router")).binding(customers)).await;
    let greeting = |text: &str| json!({ "type": "plain_text", "name": "GREETING", "text": text });
    one("staging/hello", Upload::user("staging", "hello", tenant("hello")).binding(greeting("howdy"))).await;
    one(
        "production/hello",
        Upload::user("production", "hello", tenant("hello")).binding(greeting("good day")),
    )
    .await;
    one("staging/reader", Upload::user("staging", "reader", tenant("reader"))).await;
    for name in ["greedy", "reader", "intruder"] {
        one(&format!("production/{name}"), Upload::user("production", name, tenant(name))).await;
    }
    let nginx = Upload::user("production", "www", "/usr/sbin/nginx").http().args(&["-c", "/app/nginx.conf"]);
    let page: &[u8] = b"a page from an unmodified nginx\n";
    one("production/www", nginx.files(&[("nginx.conf", NGINX), ("index.html", page)])).await;
}
