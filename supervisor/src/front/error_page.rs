//! What a client is told when no Worker answers.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::body::Body;
use crate::dispatch::Refusal;

/// The stable code of an error.
pub(super) const ERROR: HeaderName = HeaderName::from_static("cloister-error");

/// The page for `refusal`: JSON when the client asked for it, else a small page. It holds nothing
/// that a tenant wrote.
#[must_use]
pub fn error_page(refusal: Refusal, request_headers: &HeaderMap, ray: &str) -> Response<Body> {
    let failure = refusal.failure;
    let (code, message, status) = (failure.code(), failure.message(), failure.status());
    let json = request_headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("json"));
    let (kind, text) = if json {
        let body = serde_json::json!({
            "success": false,
            "errors": [{ "code": code, "message": message }],
            "messages": [],
            "result": null,
            "ray": ray,
        });
        ("application/json", format!("{body}\n"))
    } else {
        let reason = status.canonical_reason().unwrap_or("Error");
        let text = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status}</title></head>\n\
             <body><h1>{reason}</h1><p>{message}</p><p>error code: {code}<br>ray: {ray}</p></body></html>\n",
            status = status.as_u16(),
        );
        ("text/html; charset=utf-8", text)
    };
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ERROR, HeaderValue::from(code));
    if let Some(seconds) = refusal.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Failure;

    #[test]
    fn json_when_asked_for() {
        let refusal = Refusal { failure: Failure::LoadShed, retry_after: Some(3) };
        let mut headers = HeaderMap::new();
        let page = error_page(refusal, &headers, "ab");
        assert_eq!(page.headers()[ERROR], "1052");
        assert_eq!(page.headers()[RETRY_AFTER], "3");
        assert!(page.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut page = error_page(refusal, &headers, "ab");
        let bytes = page.body_mut().take_full().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["errors"][0]["code"], 1052);
    }
}
