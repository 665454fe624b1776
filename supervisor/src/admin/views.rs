//! What the API answers, in Cloudflare's shapes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::store::{Namespace, StoredBinding, Version, WorkerRecord};

/// The envelope of a success.
pub(super) fn success(result: impl serde::Serialize) -> Response {
    Json(json!({"success": true, "errors": [], "messages": [], "result": result})).into_response()
}

/// The envelope of a list.
pub(super) fn list(result: &[Value], page: u64, per_page: u64, total: u64) -> Response {
    let info = json!({
        "page": page,
        "per_page": per_page,
        "count": result.len(),
        "total_count": total,
        "total_pages": total.div_ceil(per_page.max(1)),
    });
    Json(json!({"success": true, "errors": [], "messages": [], "result": result, "result_info": info}))
        .into_response()
}

pub(super) fn namespace(namespace: &Namespace) -> Value {
    json!({
        "namespace_id": namespace.id,
        "namespace_name": namespace.name,
        "created_on": namespace.created,
        "modified_on": namespace.modified,
        "script_count": namespace.workers,
        "trusted_workers": false,
    })
}

/// A script as lists and uploads show it.
pub(super) fn script(record: &WorkerRecord) -> Value {
    let version = &record.version;
    let mut script = json!({
        "id": record.id.name,
        "etag": version.digest.as_str(),
        "created_on": record.created,
        "modified_on": record.modified,
        "tags": record.tags,
        "handlers": ["fetch"],
        "startup_time_ms": version.startup_ms,
        "cloister": extension(version),
    });
    if let (Some(namespace), Some(object)) = (&record.id.namespace, script.as_object_mut()) {
        object.insert("dispatch_namespace".to_owned(), json!(&**namespace));
    }
    script
}

/// A script as `GET` shows one of a dispatch namespace.
pub(super) fn script_of_namespace(record: &WorkerRecord) -> Value {
    json!({
        "dispatch_namespace": record.id.namespace.as_deref(),
        "created_on": record.created,
        "modified_on": record.modified,
        "script": script(record),
    })
}

/// Our own part.
fn extension(version: &Version) -> Value {
    let manifest = &version.manifest;
    json!({
        "version": &*version.id,
        "number": version.number,
        "created_on": version.created,
        "main_module": manifest.main_module,
        "size": version.size,
        "contract": manifest.contract,
        "socket": manifest.socket,
        "linkage": manifest.linkage,
        "args": manifest.args,
        "allow": manifest.allow,
        "instances": manifest.instances,
        "concurrency": manifest.concurrency,
        "resources": manifest.resources,
        "files": manifest.files,
    })
}

/// A kept version with its attestation.
pub(super) fn version(version: &Version) -> Value {
    let mut value = extension(version);
    if let Some(object) = value.as_object_mut() {
        object.insert("etag".to_owned(), json!(version.digest.as_str()));
        object.insert("startup_time_ms".to_owned(), json!(version.startup_ms));
        object.insert("walls".to_owned(), version.attestation.clone());
    }
    value
}

/// Bindings; a secret's text is never shown.
pub(super) fn bindings(version: &Version) -> Vec<Value> {
    let show = |(name, binding): (&String, &StoredBinding)| {
        let kind = binding.kind();
        match binding {
            StoredBinding::PlainText { text } => json!({"name": name, "type": kind, "text": text}),
            StoredBinding::SecretText { .. } => json!({"name": name, "type": kind}),
            StoredBinding::Json { json } => json!({"name": name, "type": kind, "json": json}),
            StoredBinding::Service { service } => json!({"name": name, "type": kind, "service": service}),
            StoredBinding::DispatchNamespace { namespace, outbound } => {
                let outbound = outbound.as_ref().map(|outbound| {
                    let params: Vec<_> = outbound.params.iter().map(|name| json!({"name": name})).collect();
                    json!({"worker": {"service": &*outbound.worker}, "params": params})
                });
                json!({"name": name, "type": kind, "namespace": namespace, "outbound": outbound})
            }
        }
    };
    version.manifest.bindings.iter().map(show).collect()
}

/// Settings.
pub(super) fn settings(record: &WorkerRecord) -> Value {
    let limits: serde_json::Map<_, _> = match serde_json::to_value(record.version.manifest.limits) {
        Ok(Value::Object(limits)) => limits.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        _ => serde_json::Map::new(),
    };
    json!({
        "bindings": bindings(&record.version),
        "tags": record.tags,
        "limits": limits,
        "cloister": extension(&record.version),
    })
}
