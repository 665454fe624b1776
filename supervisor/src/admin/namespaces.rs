//! `/workers/dispatch/namespaces`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::Value;

use super::error::ApiError;
use super::extract::{NamespaceName, Query};
use super::metadata;
use super::platform::{Platform, blocking};
use super::views;
use crate::registry::Name;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: Name,
}

pub(super) async fn list(State(platform): State<Arc<Platform>>, query: Query) -> Result<Response, ApiError> {
    query.done()?;
    let namespaces = blocking(move || Ok(platform.store.namespaces()?)).await?;
    let shown: Vec<_> = namespaces.iter().map(views::namespace).collect();
    let count = shown.len() as u64;
    Ok(views::list(&shown, 1, count.max(1), count))
}

pub(super) async fn create(
    State(platform): State<Arc<Platform>>,
    query: Query,
    body: Bytes,
) -> Result<Response, ApiError> {
    query.done()?;
    let Create { name } = metadata::parse("body", &body)?;
    Ok(views::success(views::namespace(&platform.create_namespace(name).await?)))
}

pub(super) async fn get(
    State(platform): State<Arc<Platform>>,
    NamespaceName(name): NamespaceName,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let namespace = blocking(move || Ok(platform.store.namespace(&name)?)).await?;
    Ok(views::success(views::namespace(&namespace)))
}

pub(super) async fn delete(
    State(platform): State<Arc<Platform>>,
    NamespaceName(name): NamespaceName,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    platform.delete_namespace(name).await?;
    Ok(views::success(Value::Null))
}
