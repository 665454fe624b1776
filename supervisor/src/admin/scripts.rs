//! Scripts of a dispatch namespace, and of the account itself: the same handlers for both.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest as _, Multipart, RawPathParams, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, header};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use super::error::ApiError;
use super::extract::{Item, Query, Script};
use super::lent::Lent;
use super::metadata::{self, Patch};
use super::platform::{Platform, blocking};
use super::upload;
use super::views;
use crate::registry::{Name, WorkerId};
use crate::store::{Kind, StoreError, WorkerRecord};

async fn record(platform: &Arc<Platform>, id: WorkerId) -> Result<WorkerRecord, ApiError> {
    match platform.current(&id).await? {
        Some(record) => Ok(record),
        None => Err(StoreError::NoWorker(id).into()),
    }
}

pub(super) async fn list(
    State(platform): State<Arc<Platform>>,
    params: RawPathParams,
    mut query: Query,
) -> Result<Response, ApiError> {
    let namespace = params.iter().find(|(key, _)| *key == "namespace").map(|(_, value)| Name::parse(value));
    let namespace = namespace.transpose()?;
    let filter = query.filter()?;
    let (number, page) = query.page()?;
    query.done()?;
    let (records, total) =
        blocking(move || Ok(platform.store.workers(namespace.as_ref(), &filter, page)?)).await?;
    let shown: Vec<_> = records.iter().map(views::script).collect();
    Ok(views::list(&shown, number, page.limit, total))
}

pub(super) async fn put(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut head, body) = request.into_parts();
    let mut lent = Lent::new(body);
    let kind = head.headers.get(header::CONTENT_TYPE);
    if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/"))
        && let Some(boundary) = lent.boundary().await
        && let Ok(kind) = HeaderValue::from_str(&format!("multipart/form-data; boundary=\"{boundary}\""))
    {
        head.headers.insert(header::CONTENT_TYPE, kind);
    }
    let request = Request::from_parts(head, Body::new(lent.clone()));
    let limit = platform.settings.upload_bytes;
    let refused = match upload(&platform, id, query, &lent, request).await {
        Ok(record) => return Ok(views::success(views::script(&record))),
        Err(error) => error,
    };
    lent.drain(limit).await;
    Err(refused)
}

async fn upload(
    platform: &Arc<Platform>,
    id: WorkerId,
    query: Query,
    lent: &Lent,
    request: Request,
) -> Result<WorkerRecord, ApiError> {
    query.done()?;
    platform.current(&id).await?;
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let limit = platform.settings.upload_bytes;
    if declared
        .and_then(|text| text.parse::<u64>().ok())
        .is_some_and(|length| length > limit.saturating_add(1 << 20))
    {
        return Err(ApiError::too_large(format!("an upload may have {limit} bytes (listen.upload_bytes)")));
    }
    let _turn = platform.uploads.acquire().await.map_err(ApiError::internal)?;
    let body = Multipart::from_request(request, &()).await.map_err(|error| {
        ApiError::invalid(format!(
            "{}: send multipart/form-data with a metadata part and the program",
            error.body_text()
        ))
    })?;
    let upload = upload::receive(platform, lent, body).await?;
    let record = platform.deploy(id, upload).await?;
    tracing::info!(worker = %record.id, version = %record.version.id, "deployed");
    Ok(record)
}

pub(super) async fn get(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let record = record(&platform, id).await?;
    Ok(views::success(views::script_of_namespace(&record)))
}

pub(super) async fn delete(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    mut query: Query,
) -> Result<Response, ApiError> {
    // Deleting never asks back here, so the word changes nothing.
    if let Some(force) = query.take("force")
        && force.parse::<bool>().is_err()
    {
        return Err(ApiError::invalid("query: force: allowed are true and false"));
    }
    query.done()?;
    tracing::info!(worker = %id, "deleting");
    platform.delete_worker(id).await?;
    Ok(views::success(Value::Null))
}

/// The program itself.
pub(super) async fn content(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let version = record(&platform, id).await?.version;
    let path = platform.blobs.path(Kind::Binary, &version.digest);
    let file = tokio::fs::File::open(&path).await.map_err(ApiError::internal)?;
    let etag =
        HeaderValue::from_str(&format!("\"{}\"", version.digest.as_str())).map_err(ApiError::internal)?;
    let module = HeaderValue::from_str(&version.manifest.main_module)
        .unwrap_or_else(|_| HeaderValue::from_static("program"));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(version.size)),
        (header::ETAG, etag),
        (HeaderName::from_static("cf-entrypoint"), module),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

pub(super) async fn settings(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    Ok(views::success(views::settings(&record(&platform, id).await?)))
}

pub(super) async fn patch_settings(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
    request: Request,
) -> Result<Response, ApiError> {
    query.done()?;
    let json = upload::json_or_part("settings", request).await?;
    let patch: Patch = metadata::parse("settings", &json)?;
    let record = platform.patch(id, patch).await?;
    Ok(views::success(views::settings(&record)))
}

pub(super) async fn bindings(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    Ok(views::success(views::bindings(&record(&platform, id).await?.version)))
}

pub(super) async fn versions(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let versions = blocking(move || Ok(platform.store.versions(&id)?)).await?;
    let shown: Vec<_> = versions.iter().map(views::version).collect();
    Ok(views::success(shown))
}

pub(super) async fn tags(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    Ok(views::success(record(&platform, id).await?.tags))
}

pub(super) async fn put_tags(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
    body: Bytes,
) -> Result<Response, ApiError> {
    query.done()?;
    let new: std::collections::BTreeSet<String> = metadata::parse("body", &body)?;
    metadata::check_tags(&new)?;
    let change = move |tags: &mut std::collections::BTreeSet<String>| {
        *tags = new;
        Ok(())
    };
    Ok(views::success(platform.set_tags(id, change).await?.tags))
}

pub(super) async fn put_tag(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    Item(tag): Item,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let change = move |tags: &mut std::collections::BTreeSet<String>| {
        tags.insert(tag);
        metadata::check_tags(tags)
    };
    platform.set_tags(id, change).await?;
    Ok(views::success(Value::Null))
}

pub(super) async fn delete_tag(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    Item(tag): Item,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let change = move |tags: &mut std::collections::BTreeSet<String>| {
        tags.remove(&tag);
        Ok(())
    };
    platform.set_tags(id, change).await?;
    Ok(views::success(Value::Null))
}
