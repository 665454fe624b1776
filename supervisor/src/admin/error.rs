//! Errors of the API: an HTTP status, a stable code, a message. docs/API.md lists the codes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use super::binary::BinaryError;
use super::parts::ProbeFailure;
use crate::registry::NameError;
use crate::store::{BlobError, BundleError, StoreError, VaultError};

/// An error a client is told of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [code: {code}]")]
pub struct ApiError {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable code.
    pub code: u32,
    /// What failed and what to do.
    pub message: String,
}

impl ApiError {
    /// 10000: no or wrong credentials.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: 10000, message: message.into() }
    }

    /// 10001: the request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: 10001, message: message.into() }
    }

    /// 10002: our own failure; details go to the log.
    pub fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "admin request failed");
        let message = "the platform failed; its log says why".to_owned();
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, code: 10002, message }
    }

    /// 10006: larger than allowed.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: 10006, message: message.into() }
    }

    /// 10021: the program can't be run, or failed when it was started.
    pub fn refused_program(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: 10021, message: message.into() }
    }

    /// 10056: no such secret or binding.
    pub fn no_secret(name: &str) -> Self {
        let message = format!("there is no secret {name:?} on this Worker");
        Self { status: StatusCode::NOT_FOUND, code: 10056, message }
    }

    /// 7003: no such path.
    pub fn no_route(method: &http::Method, path: &str) -> Self {
        let path = path.chars().take(200).collect::<String>();
        let message = format!("there is no API operation {method} {path}");
        Self { status: StatusCode::NOT_FOUND, code: 7003, message }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "success": false,
            "errors": [{"code": self.code, "message": self.message}],
            "messages": [],
            "result": null,
        });
        (self.status, Json(body)).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            StoreError::NoNamespace(_) => (StatusCode::NOT_FOUND, 100_119),
            StoreError::NamespaceExists(_) => (StatusCode::CONFLICT, 100_120),
            StoreError::NoWorker(_) => (StatusCode::NOT_FOUND, 10007),
            StoreError::Conflict(_) => (StatusCode::CONFLICT, 10013),
            StoreError::Corrupt(_) | StoreError::Newer { .. } | StoreError::Database(_) => {
                return Self::internal(error);
            }
        };
        Self { status, code, message }
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::TooLarge(_) => Self::too_large(format!("the upload is {error}")),
            error => Self::internal(error),
        }
    }
}

impl From<BundleError> for ApiError {
    fn from(error: BundleError) -> Self {
        match error {
            BundleError::Blob(error) => error.into(),
            error => Self::invalid(error.to_string()),
        }
    }
}

impl From<BinaryError> for ApiError {
    fn from(error: BinaryError) -> Self {
        match error {
            BinaryError::Io(error) => Self::internal(error),
            error => Self::refused_program(error.to_string()),
        }
    }
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        Self::internal(error)
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<ProbeFailure> for ApiError {
    fn from(failure: ProbeFailure) -> Self {
        Self::refused_program(failure.0)
    }
}
