//! Secrets of a script: bindings of type `secret_text`, set one by one.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::extract::{Item, Query, Script};
use super::metadata::{self, binding_name, binding_text};
use super::platform::Platform;
use super::views;
use crate::registry::WorkerId;
use crate::store::{Manifest, StoreError, StoredBinding, WorkerRecord};

/// A secret as it is sent.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secret {
    name: String,
    text: String,
    #[serde(rename = "type", default)]
    kind: Kind,
}

#[derive(Debug, Default, Deserialize)]
enum Kind {
    #[default]
    #[serde(rename = "secret_text")]
    SecretText,
}

fn shown(name: &str) -> Value {
    json!({"name": name, "type": "secret_text"})
}

async fn record(platform: &Arc<Platform>, id: WorkerId) -> Result<WorkerRecord, ApiError> {
    platform.current(&id).await?.ok_or_else(|| StoreError::NoWorker(id).into())
}

fn is_secret(binding: Option<&StoredBinding>) -> bool {
    matches!(binding, Some(StoredBinding::SecretText { .. }))
}

pub(super) async fn list(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let record = record(&platform, id).await?;
    let bindings = record.version.manifest.bindings.iter();
    let secrets: Vec<_> =
        bindings.filter(|(_, binding)| is_secret(Some(binding))).map(|(name, _)| shown(name)).collect();
    Ok(views::success(secrets))
}

pub(super) async fn get(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    Item(name): Item,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let record = record(&platform, id).await?;
    if !is_secret(record.version.manifest.bindings.get(&name)) {
        return Err(ApiError::no_secret(&name));
    }
    Ok(views::success(shown(&name)))
}

/// Sets one. Not probed: a Worker may need several before it can start.
pub(super) async fn put(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
    body: Bytes,
) -> Result<Response, ApiError> {
    query.done()?;
    let Secret { name, text, kind: Kind::SecretText } = metadata::parse("body", &body)?;
    binding_name(&name)?;
    binding_text(&name, &text)?;
    let sealed = platform.vault.seal(&id, &name, &text)?;
    change(&platform, id, |manifest| {
        let same = |known: &&String| known.eq_ignore_ascii_case(&name);
        if let Some(known) = manifest.bindings.keys().find(same)
            && !(*known == name && is_secret(manifest.bindings.get(known)))
        {
            return Err(ApiError::invalid(format!("there is another binding named {known}")));
        }
        if manifest.bindings.len() >= metadata::BINDINGS && !manifest.bindings.contains_key(&name) {
            return Err(ApiError::invalid(format!("a Worker may have {} bindings", metadata::BINDINGS)));
        }
        let binding = StoredBinding::SecretText { sealed: sealed.clone() };
        manifest.bindings.insert(name.clone(), binding);
        Ok(())
    })
    .await?;
    Ok(views::success(shown(&name)))
}

pub(super) async fn delete(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    Item(name): Item,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    change(&platform, id, |manifest| {
        if !is_secret(manifest.bindings.get(&name)) {
            return Err(ApiError::no_secret(&name));
        }
        manifest.bindings.remove(&name);
        Ok(())
    })
    .await?;
    Ok(views::success(Value::Null))
}

/// Changes the current manifest; starts over when somebody else changed it meanwhile.
async fn change(
    platform: &Arc<Platform>,
    id: WorkerId,
    edit: impl Fn(&mut Manifest) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    const TRIES: usize = 5;
    let mut last = None;
    for _ in 0..TRIES {
        let current = record(platform, id.clone()).await?;
        let mut manifest = current.version.manifest.clone();
        edit(&mut manifest)?;
        match platform.change(current, manifest, None, false).await {
            Err(error) if error.code == 10013 => last = Some(error),
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
    last.map_or(Ok(()), Err)
}
