//! Receiving an upload: parts are streamed to staging files, bounded as they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{Multipart, Request};

use super::error::ApiError;
use super::lent::Lent;
use super::metadata::{self, Metadata};
use super::platform::Platform;
use crate::store::Staged;

/// Longest `metadata` part, bytes.
const METADATA_BYTES: usize = 1 << 20;
/// Longest name of a file part, bytes; it is kept and told.
const NAME_BYTES: usize = 255;
/// Most file parts.
const PARTS: usize = 4;

/// Longest silence of a body. An upload holds one of few turns: one that hangs must not keep others
/// from deploying.
const SILENCE: Duration = Duration::from_secs(60);

/// A received upload.
#[derive(Debug)]
pub(super) struct Upload {
    /// The metadata.
    pub(super) metadata: Metadata,
    /// Name of the program's part.
    pub(super) main_module: String,
    /// The program.
    pub(super) program: Staged,
    /// The archive of files.
    pub(super) files: Option<Staged>,
}

fn broken(error: &MultipartError) -> ApiError {
    if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large("the upload is larger than listen.upload_bytes allows");
    }
    ApiError::invalid(format!("the multipart body is broken: {}", error.body_text()))
}

/// The next piece of a body, if it comes in time.
async fn heard<T>(
    silence: Duration,
    next: impl Future<Output = Result<T, MultipartError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(silence, next).await {
        Ok(piece) => piece.map_err(|error| broken(&error)),
        Err(_) => Err(ApiError::invalid(format!("the upload fell silent for {} s", silence.as_secs()))),
    }
}

/// The next part of `body`, which reads from `lent`.
async fn next_part<'a>(lent: &Lent, body: &'a mut Multipart) -> Result<Option<Field<'a>>, ApiError> {
    lent.reads_head(true);
    let part = heard(SILENCE, body.next_field()).await?;
    lent.reads_head(false);
    Ok(part)
}

/// Receives all parts of `body`, which reads from `lent`.
pub(super) async fn receive(
    platform: &Arc<Platform>,
    lent: &Lent,
    mut body: Multipart,
) -> Result<Upload, ApiError> {
    let mut described: Option<Metadata> = None;
    let mut parts: BTreeMap<String, Staged> = BTreeMap::new();
    let mut left = platform.settings.upload_bytes;
    while let Some(field) = next_part(lent, &mut body).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "metadata" {
            let text = read_text(field, METADATA_BYTES).await?;
            if described.replace(metadata::parse("metadata", &text)?).is_some() {
                return Err(ApiError::invalid("the part metadata is there twice"));
            }
            continue;
        }
        if name.starts_with("metadata[") {
            return Err(ApiError::invalid("metadata must be one part that holds JSON, not form fields"));
        }
        // Cloudflare's own clients name the part after the file, or give it as its file name.
        let name = field.file_name().map_or(name, str::to_owned);
        if name.len() > NAME_BYTES || name.chars().any(char::is_control) {
            return Err(ApiError::invalid(format!(
                "the name of a part may have {NAME_BYTES} bytes, and no control characters"
            )));
        }
        if parts.len() == PARTS {
            return Err(ApiError::invalid(format!("more than {PARTS} file parts")));
        }
        let staged = read_file(platform, field, left).await?;
        left = left.saturating_sub(staged.size());
        if parts.insert(name.clone(), staged).is_some() {
            return Err(ApiError::invalid(format!("the part {name:?} is there twice")));
        }
    }
    let Some(metadata) = described else {
        return Err(ApiError::invalid(
            "there is no part named metadata (JSON with main_module, bindings, …)",
        ));
    };
    let Some(main_module) = metadata.main_module.clone() else {
        return Err(ApiError::invalid(
            "metadata.main_module is missing: the name of the part that is the program",
        ));
    };
    let mut take = |key: &str, name: &str| {
        let known = parts.keys().cloned().collect::<Vec<_>>().join(", ");
        parts.remove(name).ok_or_else(|| {
            ApiError::invalid(format!("metadata.{key}: there is no part named {name:?} (there are: {known})"))
        })
    };
    let program = take("main_module", &main_module)?;
    let files = metadata.cloister.files.as_deref().map(|name| take("cloister.files", name)).transpose()?;
    if let Some(name) = parts.keys().next() {
        return Err(ApiError::invalid(format!("metadata says nothing of the part {name:?}")));
    }
    Ok(Upload { metadata, main_module, program, files })
}

async fn read_text(mut field: Field<'_>, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::new();
    while let Some(chunk) = heard(SILENCE, field.chunk()).await? {
        if text.len() + chunk.len() > limit {
            return Err(ApiError::too_large(format!("a metadata part may have {limit} bytes")));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

async fn read_file(platform: &Arc<Platform>, mut field: Field<'_>, limit: u64) -> Result<Staged, ApiError> {
    let mut staged = platform.blobs.stage(limit, &cloister_ipc::SDK_MARKER)?;
    while let Some(chunk) = heard(SILENCE, field.chunk()).await? {
        staged.append(&chunk)?;
    }
    Ok(staged)
}

/// JSON from a body that is either JSON or multipart with one part of that name.
pub(super) async fn json_or_part(part: &str, request: Request) -> Result<Vec<u8>, ApiError> {
    use axum::extract::FromRequest as _;
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    let multipart = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"));
    if !multipart {
        let bytes = axum::body::to_bytes(request.into_body(), METADATA_BYTES);
        let bytes = tokio::time::timeout(SILENCE, bytes).await;
        let bytes = bytes.map_err(|_| ApiError::invalid("the body did not come in time"))?;
        return Ok(bytes.map_err(|_| ApiError::too_large("the body is too large or broke off"))?.into());
    }
    let (head, body) = request.into_parts();
    let lent = Lent::new(body);
    let request = Request::from_parts(head, Body::new(lent.clone()));
    let mut body =
        Multipart::from_request(request, &()).await.map_err(|error| ApiError::invalid(error.body_text()))?;
    let mut found = None;
    while let Some(field) = next_part(&lent, &mut body).await? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != part {
            return Err(ApiError::invalid(format!(
                "the part {name:?} is not supported here: send one named {part:?}"
            )));
        }
        if found.replace(read_text(field, METADATA_BYTES).await?).is_some() {
            return Err(ApiError::invalid(format!("the part {part} is there twice")));
        }
    }
    found.ok_or_else(|| ApiError::invalid(format!("there is no part named {part}")))
}

#[cfg(test)]
mod tests {
    use axum::extract::FromRequest as _;

    use super::*;

    #[tokio::test]
    async fn an_upload_that_hangs_is_given_up() {
        let (_going, hangs) = tokio::sync::oneshot::channel::<Result<bytes::Bytes, std::io::Error>>();
        let body = futures_util::stream::once(async { hangs.await.unwrap_or_else(|_| Ok("".into())) });
        let request = http::Request::put("/")
            .header("content-type", "multipart/form-data; boundary=x")
            .body(axum::body::Body::from_stream(body));
        let mut body = Multipart::from_request(request.unwrap(), &()).await.unwrap();
        let error = heard(Duration::from_millis(20), body.next_field()).await.unwrap_err();
        assert!(error.message.contains("silent"), "{}", error.message);
    }
}
