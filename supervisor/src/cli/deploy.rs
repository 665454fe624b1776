//! `cloister deploy`.

use std::io::{IsTerminal as _, Seek as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures_util::{StreamExt as _, stream};
use http::{Method, header};
use http_body::Frame;
use http_body_util::StreamBody;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio_util::io::ReaderStream;

use super::client::{self, Client};
use super::error::CliError;
use super::show::Show;
use super::{script_path, secret};
use crate::body::{Body, BodyError};
use crate::registry::{Contract, HttpSocket, Name};
use crate::serve::exit;

const BOUNDARY: &str = "cloister-6f1c0e5b9a3d4f27";

/// `cloister deploy`.
#[derive(Debug, Args)]
pub(super) struct Deploy {
    /// The program: a Linux executable.
    file: PathBuf,
    /// Name of the Worker.
    #[arg(long)]
    name: Name,
    /// Its dispatch namespace; without, it becomes a Worker of the account.
    #[arg(long, short)]
    namespace: Option<Name>,
    /// How it answers; without, `ipc` if the SDK is found in it, else `http`.
    #[arg(long, value_parser = contract)]
    contract: Option<Contract>,
    /// http: `listen` (on $PORT, by itself) or `inherit` (accepts on descriptor 3).
    #[arg(long, value_parser = socket)]
    http_socket: Option<HttpSocket>,
    /// Argument for the program; may be repeated; ${PORT} stands for the port.
    #[arg(long = "arg", value_name = "ARG", allow_hyphen_values = true)]
    args: Vec<String>,
    /// Wall to lower, where the operator's sandbox policy grants it: processes, jit, proc.
    #[arg(long, value_name = "WALL")]
    allow: Vec<String>,
    /// Folder (or uncompressed tar archive) for /app, read-only.
    #[arg(long, value_name = "DIR|TAR")]
    files: Option<PathBuf>,
    /// Text binding.
    #[arg(long = "text", value_name = "NAME=TEXT", value_parser = pair)]
    texts: Vec<(String, String)>,
    /// JSON binding.
    #[arg(long = "json-binding", value_name = "NAME=JSON", value_parser = pair)]
    jsons: Vec<(String, String)>,
    /// Secret binding, its text from a file.
    #[arg(long = "secret-file", value_name = "NAME=FILE", value_parser = pair)]
    secrets: Vec<(String, String)>,
    /// Service binding: another Worker of the account.
    #[arg(long = "service", value_name = "NAME=WORKER", value_parser = pair)]
    services: Vec<(String, String)>,
    /// Dispatch namespace binding, with an outbound Worker and the parameters it gets.
    #[arg(long = "dispatch-namespace", value_name = "NAME=NAMESPACE[:OUTBOUND[:PARAM,…]]", value_parser = pair)]
    dispatch: Vec<(String, String)>,
    /// Forget the secrets that the Worker has; without, they are kept.
    #[arg(long)]
    drop_secrets: bool,
    /// Tag; may be repeated. Without, tags stay as they are.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Most processes at a time.
    #[arg(long, value_name = "N")]
    instances: Option<u32>,
    /// Most invocations of a process at a time.
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// CPU time of an invocation, milliseconds.
    #[arg(long, value_name = "MS")]
    cpu_ms: Option<u32>,
    /// Wall time of an invocation, milliseconds.
    #[arg(long, value_name = "MS")]
    wall_ms: Option<u32>,
    /// Outgoing requests of an invocation.
    #[arg(long, value_name = "N")]
    subrequests: Option<u32>,
    /// Request body, bytes.
    #[arg(long, value_name = "BYTES")]
    request_body_bytes: Option<u64>,
    /// Memory of a process, bytes.
    #[arg(long, value_name = "BYTES")]
    memory_bytes: Option<u64>,
    /// Processes and threads of a process tree.
    #[arg(long, value_name = "N")]
    pids: Option<u32>,
    /// CPU ceiling of a process, percent of one core.
    #[arg(long, value_name = "PERCENT")]
    cpu_percent: Option<u32>,
    /// Size of /tmp, bytes.
    #[arg(long, value_name = "BYTES")]
    tmp_bytes: Option<u64>,
}

fn contract(text: &str) -> Result<Contract, String> {
    serde_json::from_value(json!(text)).map_err(|_| "allowed are http and ipc".to_owned())
}

fn socket(text: &str) -> Result<HttpSocket, String> {
    serde_json::from_value(json!(text)).map_err(|_| "allowed are listen and inherit".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Deploy {
    pub(super) async fn run(self, client: &Client, show: &Show) -> Result<(), CliError> {
        let metadata = self.metadata()?;
        let program = open(&self.file)?;
        let files = self.files.as_deref().map(archive).transpose()?;
        let path = script_path(self.namespace.as_ref(), &self.name);
        let mut parts = vec![part("metadata", Content::Text(metadata.to_string()))];
        parts.push(part("program", Content::File(program)));
        parts.extend(files.map(|files| part("files", Content::File(files))));
        let (length, body) = multipart(parts, show)?;
        let request = client
            .request(Method::PUT, &path)
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"))
            .header(header::CONTENT_LENGTH, length);
        let answer = client::answer(client.send(request, body).await?).await?;
        let shown = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        show.result(&answer["result"], |script| {
            format!(
                "deployed {shown}{}: version {} ({}), contract {}, first start {} ms",
                self.name,
                script["cloister"]["number"],
                script["cloister"]["version"].as_str().unwrap_or_default(),
                script["cloister"]["contract"].as_str().unwrap_or_default(),
                script["startup_time_ms"],
            )
        });
        Ok(())
    }

    fn metadata(&self) -> Result<Value, CliError> {
        let mut bindings = Vec::new();
        for (name, text) in &self.texts {
            bindings.push(json!({"type": "plain_text", "name": name, "text": text}));
        }
        for (name, text) in &self.jsons {
            let value: Value = serde_json::from_str(text)
                .map_err(|error| CliError::failed(exit::USAGE, format!("--json-binding {name}: {error}")))?;
            bindings.push(json!({"type": "json", "name": name, "json": value}));
        }
        for (name, file) in &self.secrets {
            let text = secret::text(Some(PathBuf::from(file)))?;
            bindings.push(json!({"type": "secret_text", "name": name, "text": text}));
        }
        for (name, service) in &self.services {
            bindings.push(json!({"type": "service", "name": name, "service": service}));
        }
        bindings.extend(self.dispatch.iter().map(|(name, value)| dispatch(name, value)));
        let mut metadata = json!({
            "main_module": "program",
            "bindings": bindings,
            "limits": given(&[
                ("cpu_ms", self.cpu_ms.map(Into::into)),
                ("wall_ms", self.wall_ms.map(Into::into)),
                ("subrequests", self.subrequests.map(Into::into)),
                ("request_body_bytes", self.request_body_bytes),
            ]),
        });
        let mut own = given(&[
            ("instances", self.instances.map(Into::into)),
            ("concurrency", self.concurrency.map(Into::into)),
        ]);
        own.insert("args".to_owned(), json!(self.args));
        own.insert("allow".to_owned(), json!(self.allow));
        let resources = given(&[
            ("memory_bytes", self.memory_bytes),
            ("pids", self.pids.map(Into::into)),
            ("cpu_percent", self.cpu_percent.map(Into::into)),
            ("tmp_bytes", self.tmp_bytes),
        ]);
        own.insert("resources".to_owned(), Value::Object(resources));
        if let Some(contract) = self.contract {
            own.insert("contract".to_owned(), json!(contract));
        }
        if let Some(socket) = self.http_socket {
            own.insert("socket".to_owned(), json!(socket));
        }
        if self.files.is_some() {
            own.insert("files".to_owned(), json!("files"));
        }
        if let Some(object) = metadata.as_object_mut() {
            object.insert("cloister".to_owned(), Value::Object(own));
            if !self.tags.is_empty() {
                object.insert("tags".to_owned(), json!(self.tags));
            }
            if !self.drop_secrets {
                object.insert("keep_bindings".to_owned(), json!(["secret_text"]));
            }
        }
        Ok(metadata)
    }
}

fn given(numbers: &[(&str, Option<u64>)]) -> Map<String, Value> {
    numbers.iter().filter_map(|(key, number)| Some(((*key).to_owned(), json!((*number)?)))).collect()
}

/// `NAMESPACE[:OUTBOUND[:PARAM,…]]`
fn dispatch(name: &str, value: &str) -> Value {
    let mut parts = value.splitn(3, ':');
    let namespace = parts.next().unwrap_or_default();
    let mut binding = json!({"type": "dispatch_namespace", "name": name, "namespace": namespace});
    if let (Some(outbound), Some(object)) = (parts.next(), binding.as_object_mut()) {
        let params = parts.next().unwrap_or_default().split(',').filter(|param| !param.is_empty());
        let params: Vec<_> = params.map(|param| json!({"name": param})).collect();
        object.insert("outbound".to_owned(), json!({"worker": {"service": outbound}, "params": params}));
    }
    binding
}

fn open(path: &Path) -> Result<std::fs::File, CliError> {
    std::fs::File::open(path).map_err(|error| CliError::file(path, &error))
}

/// A folder as a tar archive in a temporary file, or an archive as it is.
fn archive(path: &Path) -> Result<std::fs::File, CliError> {
    let failed = |error| CliError::file(path, &error);
    if !path.metadata().map_err(failed)?.is_dir() {
        return open(path);
    }
    let mut builder = tar::Builder::new(unnamed().map_err(failed)?);
    builder.follow_symlinks(true);
    builder.append_dir_all("", path).map_err(failed)?;
    let mut file = builder.into_inner().map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// A file without a name that goes with its descriptor.
fn unnamed() -> std::io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?.into())
}

enum Content {
    Text(String),
    File(std::fs::File),
}

fn part(name: &'static str, content: Content) -> (String, Content) {
    let kind = match content {
        Content::Text(_) => "application/json",
        Content::File(_) => "application/octet-stream",
    };
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\n\r\n"
    );
    (head, content)
}

/// The body and its length; progress is shown on a terminal.
fn multipart(parts: Vec<(String, Content)>, show: &Show) -> Result<(u64, Body), CliError> {
    let mut length = 0;
    let mut pieces = Vec::new();
    let text = |text: String| stream::iter([Ok(Bytes::from(text))]).boxed();
    for (head, content) in parts {
        length += head.len() as u64 + 2;
        pieces.push(text(head));
        match content {
            Content::Text(content) => {
                length += content.len() as u64;
                pieces.push(text(content));
            }
            Content::File(file) => {
                let size =
                    file.metadata().map_err(|error| CliError::failed(exit::FAILED, error.to_string()))?.len();
                length += size;
                pieces.push(ReaderStream::with_capacity(tokio::fs::File::from_std(file), 256 * 1024).boxed());
            }
        }
        pieces.push(text("\r\n".to_owned()));
    }
    let end = format!("--{BOUNDARY}--\r\n");
    length += end.len() as u64;
    pieces.push(text(end));
    let progress = progress(length, show);
    let frames = stream::iter(pieces).flatten().map(move |piece: std::io::Result<Bytes>| {
        let bytes = piece.map_err(BodyError::from)?;
        progress.inc(bytes.len() as u64);
        if progress.position() >= length {
            progress.set_message("sent; starting it behind its walls …");
        }
        Ok::<_, BodyError>(Frame::data(bytes))
    });
    Ok((length, Body::boxed(StreamBody::new(frames))))
}

fn progress(length: u64, show: &Show) -> ProgressBar {
    if show.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg}");
    let bar = ProgressBar::new(length);
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}
