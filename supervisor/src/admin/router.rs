//! All paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::Request;
use axum::routing::{get, put};

use super::error::ApiError;
use super::platform::Platform;
use super::{extract, namespaces, own, scripts, secrets};

/// Longest body of an operation that is no upload, bytes.
const BODY_BYTES: usize = 1 << 20;

/// The API, without authentication: see [`server`](super::server).
pub fn router(platform: Arc<Platform>) -> Router {
    let upload = usize::try_from(platform.settings.upload_bytes).unwrap_or(usize::MAX);
    let script = || {
        Router::new()
            .route(
                "/",
                put(scripts::put)
                    .layer(DefaultBodyLimit::max(upload.saturating_add(BODY_BYTES)))
                    .get(scripts::get)
                    .delete(scripts::delete),
            )
            .route("/content", get(scripts::content))
            .route("/settings", get(scripts::settings).patch(scripts::patch_settings))
            .route("/bindings", get(scripts::bindings))
            .route("/versions", get(scripts::versions))
            .route("/secrets", get(secrets::list).put(secrets::put))
            .route("/secrets/{item}", get(secrets::get).delete(secrets::delete))
            .route("/tags", get(scripts::tags).put(scripts::put_tags))
            .route("/tags/{item}", put(scripts::put_tag).delete(scripts::delete_tag))
            .route("/inspect", get(own::inspect))
            .route("/tail", get(own::tail))
            .route("/egress", get(own::decisions))
    };
    let account = Router::new()
        .route("/workers/dispatch/namespaces", get(namespaces::list).post(namespaces::create))
        .route("/workers/dispatch/namespaces/{namespace}", get(namespaces::get).delete(namespaces::delete))
        .route("/workers/dispatch/namespaces/{namespace}/scripts", get(scripts::list))
        .nest("/workers/dispatch/namespaces/{namespace}/scripts/{script}", script())
        .route("/workers/scripts", get(scripts::list))
        .nest("/workers/scripts/{script}", script())
        .route("/cloister/processes", get(own::live))
        .route("/cloister/policies", get(own::policies))
        .route("/cloister/verify", get(own::verify))
        .route_layer(axum::middleware::from_fn_with_state(Arc::clone(&platform), extract::account));
    Router::new()
        .nest("/client/v4/accounts/{account}", account)
        .route("/health", get(own::health))
        .route("/metrics", get(own::metrics))
        .fallback(
            |request: Request| async move { ApiError::no_route(request.method(), request.uri().path()) },
        )
        .method_not_allowed_fallback(|request: Request| async move {
            ApiError::no_route(request.method(), request.uri().path())
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(platform)
}
