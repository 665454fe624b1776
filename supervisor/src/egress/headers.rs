//! Header fields that end at the filter, and those a rule changes.

use cloister_policies::egress::{HeaderTemplateError, Rule, is_reserved};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::Secrets;
use crate::registry::WorkerId;

/// Says on an answer of the filter itself what it is about; no other answer has a field of the platform's.
pub(super) const MARK: HeaderName = HeaderName::from_static("cloister-egress");

/// The one protocol a connection may switch to: anything else (`h2c` above all) would hide requests
/// from the filter.
const WEBSOCKET: &str = "websocket";

/// Whether these headers ask for a WebSocket.
pub(crate) fn wants_websocket(method: &Method, headers: &HeaderMap) -> bool {
    let upgrade = headers.get_all(UPGRADE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    let connection = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    method == Method::GET
        && matches!(upgrade.as_slice(), [one] if one.eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
        && connection
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// As text, for one walk over the names that are there: most messages have none of these.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "upgrade"
            | "transfer-encoding"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
    )
}

/// Takes away what belongs to one connection only; `Content-Length` stays.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let there: Vec<HeaderName> =
        headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    if there.is_empty() {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named.iter().chain(&there) {
        headers.remove(name);
    }
}

/// Brings the headers of a request into the form that leaves the machine.
///
/// # Errors
/// When a secret of the rule can't be put in.
pub(super) fn prepare(
    headers: &mut HeaderMap,
    websocket: bool,
    rule: Option<&Rule>,
    worker: &WorkerId,
    secrets: Option<&dyn Secrets>,
) -> Result<(), HeaderTemplateError> {
    strip_hop_by_hop(headers);
    // The filter answers 100-continue itself, and writes Host from the URI that was judged.
    headers.remove(EXPECT);
    headers.remove(HOST);
    if let Some(rule) = rule {
        for name in &rule.remove_headers {
            headers.remove(name);
        }
        for (name, template) in &rule.set_headers {
            debug_assert!(!is_reserved(name));
            let value = template.render(|name| secrets?.secret(worker, name))?;
            headers.insert(name, value);
        }
    }
    if websocket {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_belongs_to_the_connection_ends_here() {
        let mut map = headers(&[
            ("connection", "close, X-Mine"),
            ("connection", "host, content-length"),
            ("x-mine", "1"),
            ("host", "a"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("keep-alive", "x"),
            ("proxy-connection", "x"),
            ("proxy-authenticate", "x"),
            ("trailer", "x"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut map);
        let mut left: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn only_a_websocket_may_be_switched_to() {
        let get = Method::GET;
        assert!(wants_websocket(
            &get,
            &headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")])
        ));
        assert!(!wants_websocket(
            &Method::POST,
            &headers(&[("connection", "upgrade"), ("upgrade", "websocket")])
        ));
        assert!(!wants_websocket(&get, &headers(&[("upgrade", "websocket")])));
        assert!(!wants_websocket(&get, &headers(&[("connection", "upgrade"), ("upgrade", "h2c")])));
        assert!(!wants_websocket(
            &get,
            &headers(&[("connection", "upgrade"), ("upgrade", "websocket, h2c")])
        ));
        let twice = [("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")];
        assert!(!wants_websocket(&get, &headers(&twice)));
    }
}
