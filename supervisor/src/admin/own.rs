//! Our own additions: what lives, what happened, what was decided.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::header;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::error::ApiError;
use super::extract::{Query, Script};
use super::platform::{Platform, blocking};
use super::views;
use crate::registry::WorkerId;
use crate::store::{Kind, StoreError, WorkerRecord};
use crate::telemetry::Event;

async fn record(platform: &Arc<Platform>, id: &WorkerId) -> Result<WorkerRecord, ApiError> {
    platform.current(id).await?.ok_or_else(|| StoreError::NoWorker(id.clone()).into())
}

/// Lives; asked by load balancers, so it tells nothing else.
pub(super) async fn health() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"status":"ok"}"#).into_response()
}

/// For Prometheus.
pub(super) async fn metrics(State(platform): State<Arc<Platform>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    platform.parts.telemetry.process();
    ([(header::CONTENT_TYPE, kind)], platform.parts.telemetry.metrics().render()).into_response()
}

/// All live processes.
pub(super) async fn live(State(platform): State<Arc<Platform>>, query: Query) -> Result<Response, ApiError> {
    query.done()?;
    Ok(views::success(platform.parts.pool.live()))
}

/// One Worker: its version, the walls it was raised behind, its live processes with what the kernel
/// says of them now.
pub(super) async fn inspect(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let record = record(&platform, &id).await?;
    let processes = platform.parts.pool.inspect(&id).await;
    let mut shown = views::script(&record);
    if let Some(object) = shown.as_object_mut() {
        object.insert("bindings".to_owned(), Value::from(views::bindings(&record.version)));
        object.insert("walls".to_owned(), record.version.attestation.clone());
        object.insert("processes".to_owned(), Value::from(processes));
        object.insert("trouble".to_owned(), json!(platform.parts.pool.trouble(&id)));
    }
    Ok(views::success(shown))
}

/// What happened to a Worker: with `follow=true` a line of JSON for each event until the client
/// leaves, else the last events.
pub(super) async fn tail(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    mut query: Query,
) -> Result<Response, ApiError> {
    let follow = match query.take("follow").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::invalid("query: follow: allowed are true and false")),
    };
    query.done()?;
    record(&platform, &id).await?;
    let telemetry = &platform.parts.telemetry;
    // Followed before the past is looked up, so that nothing falls between.
    let mut events = telemetry.follow();
    let recent = telemetry.recent(&id);
    if !follow {
        return Ok(views::success(recent));
    }
    let past: Vec<_> = recent.iter().map(|event| line(event)).collect();
    let mut stop = platform.parts.stop.clone();
    let next = async move || loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        match event {
            Ok(event) if event.worker == id && !recent.iter().any(|old| Arc::ptr_eq(old, &event)) => {
                return Some(line(&event));
            }
            Ok(_) => {}
            Err(RecvError::Lagged(lost)) => {
                return Some(Bytes::from(format!("{}\n", json!({"kind": "lost", "events": lost}))));
            }
            Err(RecvError::Closed) => return None,
        }
    };
    let future = stream::unfold(next, async |mut next| next().await.map(|line| (line, next)));
    let lines = stream::iter(past).chain(future).map(Ok::<_, Infallible>);
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn line(event: &Event) -> Bytes {
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

/// What the egress filter decided for a Worker.
pub(super) async fn decisions(
    State(platform): State<Arc<Platform>>,
    Script(id): Script,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    record(&platform, &id).await?;
    Ok(views::success(platform.parts.egress.decisions(&id)))
}

/// The egress policy files.
pub(super) async fn policies(
    State(platform): State<Arc<Platform>>,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    Ok(views::success(platform.parts.egress.policies()))
}

/// Reads every stored file and compares it with the digest that names it.
pub(super) async fn verify(
    State(platform): State<Arc<Platform>>,
    query: Query,
) -> Result<Response, ApiError> {
    query.done()?;
    let damaged = blocking(move || {
        let mut damaged = Vec::new();
        let (mut binaries, mut bundles) =
            (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
        platform.store.each_worker(&mut |record| {
            let version = record.version;
            if let Some(files) = version.manifest.files
                && let Some(digest) = crate::registry::Digest::parse(&files.digest)
            {
                bundles.insert(digest);
            }
            binaries.insert(version.digest);
            Ok(())
        })?;
        let all = binaries.iter().map(|digest| (Kind::Binary, digest));
        for (kind, digest) in all.chain(bundles.iter().map(|digest| (Kind::Bundle, digest))) {
            if let Err(error) = platform.blobs.verify(kind, digest) {
                damaged.push(json!({"digest": digest.as_str(), "message": error.to_string()}));
            }
        }
        Ok(json!({"checked": binaries.len() + bundles.len(), "damaged": damaged}))
    })
    .await?;
    Ok(views::success(damaged))
}
