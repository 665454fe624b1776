//! Our own additions below `/accounts/{account}/cloister`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::error::ApiError;
use super::extract::{Query, Script};
use super::platform::Platform;
use super::views;
use crate::store::StoreError;

/// All live processes.
pub(super) async fn live(State(platform): State<Arc<Platform>>, query: Query) -> Result<Response, ApiError> {
    query.done()?;
    Ok(views::success(platform.pool.live()))
}

/// One Worker: its version, the walls it was raised behind, its live processes.
pub(super) async fn inspect(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let Some(record) = platform.current(&id).await? else { return Err(StoreError::NoWorker(id).into()) };
    let of_it = |process: &Value| {
        process.get("worker").and_then(Value::as_str) == Some(&*id.name)
            && process.get("namespace").and_then(Value::as_str) == id.namespace.as_deref()
    };
    let processes: Vec<_> = platform.pool.live().into_iter().filter(of_it).collect();
    let mut shown = views::script(&record);
    if let Some(object) = shown.as_object_mut() {
        object.insert("bindings".to_owned(), Value::from(views::bindings(&record.version)));
        object.insert("walls".to_owned(), record.version.attestation.clone());
        object.insert("processes".to_owned(), Value::from(processes));
    }
    Ok(views::success(shown))
}
