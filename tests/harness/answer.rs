//! A whole HTTP response.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

/// A response with its body read to the end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// Whole body.
    pub body: Bytes,
    /// Trailer fields, empty when there were none.
    pub trailers: HeaderMap,
}

impl Answer {
    /// Body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}), status {}: {}", self.status, self.text()))
    }

    /// A header field as text, if there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header that is text"))
    }

    /// The platform's stable error code, if it is the platform that answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.header("cloister-error").map(|code| code.parse().expect("a number in cloister-error"))
    }

    /// Asserts the status, showing the answer otherwise.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Asserts that the platform answered with this status and stable code.
    #[track_caller]
    pub fn expect_failure(self, status: u16, code: u16) -> Self {
        assert_eq!(
            (self.status.as_u16(), self.code()),
            (status, Some(code)),
            "{:?}\n{}",
            self.headers,
            self.text()
        );
        self
    }
}
