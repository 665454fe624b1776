//! Uploading a Worker by the API.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{Answer, Platform, Tenant};

/// Account id of the tests; the platform has one account.
pub(crate) const ACCOUNT: &str = "default";

/// An upload: who, what, and its metadata.
#[derive(Debug, Clone)]
pub struct Upload {
    namespace: Option<String>,
    name: String,
    program: Bytes,
    files: Option<Bytes>,
    metadata: Value,
}

impl Upload {
    /// A Worker of the account: a dispatch or outbound Worker. SDK contract unless said otherwise.
    #[must_use]
    pub fn account(name: &str, tenant: impl Into<Tenant>) -> Self {
        let tenant = tenant.into();
        let program =
            std::fs::read(&tenant.path).unwrap_or_else(|error| panic!("{}: {error}", tenant.path.display()));
        Self::bytes(name, program)
    }

    /// As [`Upload::account`], with bytes instead of a program.
    #[must_use]
    pub fn bytes(name: &str, program: impl Into<Bytes>) -> Self {
        let metadata = json!({ "main_module": "program", "cloister": { "contract": "ipc" } });
        Self { namespace: None, name: name.to_owned(), program: program.into(), files: None, metadata }
    }

    /// A user Worker of a dispatch namespace.
    #[must_use]
    pub fn user(namespace: &str, name: &str, tenant: impl Into<Tenant>) -> Self {
        Self::account(name, tenant).namespace(namespace)
    }

    /// Moves it into a dispatch namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Contract `http`.
    #[must_use]
    pub fn http(self) -> Self {
        self.cloister("contract", "http")
    }

    /// Sets a key of the `cloister` object.
    #[must_use]
    pub fn cloister(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.metadata["cloister"][key] = value.into();
        self
    }

    /// Sets a key of the metadata.
    #[must_use]
    pub fn metadata(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.metadata[key] = value.into();
        self
    }

    /// Appends a binding.
    #[must_use]
    pub fn binding(mut self, binding: Value) -> Self {
        match &mut self.metadata["bindings"] {
            Value::Array(bindings) => bindings.push(binding),
            none => *none = json!([binding]),
        }
        self
    }

    /// Arguments.
    #[must_use]
    pub fn args(self, args: &[&str]) -> Self {
        self.cloister("args", args)
    }

    /// Files for `/app`: path and content of each.
    #[must_use]
    pub fn files(mut self, files: &[(&str, &[u8])]) -> Self {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len().try_into().expect("a length"));
            header.set_mode(0o644);
            archive.append_data(&mut header, path, *content).expect("a tar archive in memory");
        }
        self.files = Some(archive.into_inner().expect("a tar archive in memory").into());
        self.cloister("files", "files")
    }

    /// One file whose path in the archive is exactly `path`, sensible or not.
    #[must_use]
    pub fn raw_file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(content.len().try_into().expect("a length"));
        header.set_mode(0o644);
        header.set_cksum();
        let mut archive = tar::Builder::new(Vec::new());
        archive.append(&header, content).expect("a tar archive in memory");
        self.files = Some(archive.into_inner().expect("a tar archive in memory").into());
        self.cloister("files", "files")
    }

    /// Size of the program, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.program.len()
    }

    /// The API's path of the Worker.
    #[must_use]
    pub fn path(&self) -> String {
        script_path(self.namespace.as_deref(), &self.name)
    }

    /// Sends it and returns the API's answer.
    pub async fn send(self, platform: &Platform) -> Answer {
        const BOUNDARY: &str = "cloister-test-boundary-7MA4YWxkTrZu0gW";
        let path = self.path();
        let metadata = self.metadata.to_string();
        let mut parts = vec![("metadata", "application/json", metadata.as_bytes())];
        parts.push(("program", "application/octet-stream", &self.program));
        if let Some(files) = &self.files {
            parts.push(("files", "application/x-tar", files));
        }
        let mut body = Vec::new();
        for (name, kind, content) in parts {
            let head = format!(
                "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\n\
                 content-type: {kind}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        let request = Request::put(format!("http://admin{path}"))
            .header("content-type", format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        platform.admin().send(request).await
    }

    /// Sends it and returns the result, or panics with the errors.
    pub async fn deploy(self, platform: &Platform) -> Value {
        let what = self.path();
        let answer = self.send(platform).await;
        assert!(answer.status.is_success(), "{what}: {} {}", answer.status, answer.text());
        answer.json()["result"].take()
    }
}

/// The API's path of a Worker.
pub(crate) fn script_path(namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => {
            format!("/client/v4/accounts/{ACCOUNT}/workers/dispatch/namespaces/{namespace}/scripts/{name}")
        }
        None => format!("/client/v4/accounts/{ACCOUNT}/workers/scripts/{name}"),
    }
}

impl Platform {
    /// Calls the admin API; `path` is below `/client/v4/accounts/{account}/workers`.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("http://admin/client/v4/accounts/{ACCOUNT}/workers{path}");
        let mut request = Request::builder().method(method).uri(url);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.admin().send(request.body(Full::new(Bytes::from(body))).expect("a request")).await
    }

    /// Creates a dispatch namespace.
    pub async fn namespace(&self, name: &str) {
        let answer = self.api(Method::POST, "/dispatch/namespaces", Some(json!({ "name": name }))).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }

    /// Deletes a Worker.
    pub async fn delete(&self, namespace: Option<&str>, name: &str) -> Answer {
        let url = format!("http://admin{}", script_path(namespace, name));
        self.admin().send(Request::delete(url).body(Full::<Bytes>::default()).expect("a request")).await
    }
}
