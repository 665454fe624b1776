//! Header fields that end at the platform: hop-by-hop ones, and its own.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::body::Body;

/// Prefix of the platform's own fields; nobody else may set them.
const OWN: &str = "cloister-";

/// The one protocol that a connection may switch to: after another one nobody could tell what passes.
const WEBSOCKET: &[u8] = b"websocket";

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields of one connection, and those that decide about others.
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
];

/// As text: comparing a name with each of [`HOP_BY_HOP`] costs ten times as much.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
    )
}

/// Whether there may be anything to remove. Most messages have nothing of it, and one walk over their names
/// costs less than looking each name up.
fn has_any(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let text = name.as_str();
        is_hop_by_hop(text) || text.starts_with(OWN) || text.bytes().any(|byte| byte == b'_')
    })
}

/// Removes hop-by-hop fields (RFC 9110, 7.6.1). With `upgrade`, the agreement to switch protocols
/// is kept, and nothing else.
fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let protocol = if upgrade { headers.remove(UPGRADE) } else { None };
    if headers.contains_key(CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in listed {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Removes fields whose names only differ from a protected one by `_` for `-`: servers that hand
/// fields on as variables (CGI, WSGI) can't tell the two apart.
pub fn strip_lookalikes(headers: &mut HeaderMap, protected: impl Fn(&str) -> bool) {
    let alike = |name: &HeaderName| {
        let name = name.as_str();
        name.contains('_') && protected(&name.replace('_', "-"))
    };
    if headers.keys().any(|name| name.as_str().contains('_')) {
        let alike: Vec<_> = headers.keys().filter(|name| alike(name)).cloned().collect();
        for name in alike {
            headers.remove(name);
        }
    }
}

/// Removes the platform's own fields, and what looks like them: whoever else set them may not.
pub fn strip_own(headers: &mut HeaderMap) {
    strip_lookalikes(headers, |name| name.starts_with(OWN));
    if headers.keys().any(|name| name.as_str().starts_with(OWN)) {
        let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OWN)).cloned().collect();
        for name in own {
            headers.remove(name);
        }
    }
}

/// Cleans a request before a Worker gets it, from a client or from another Worker.
pub fn strip_request(headers: &mut HeaderMap) {
    if !has_any(headers) {
        return;
    }
    let upgrade = asks_to_switch(headers);
    strip_hop_by_hop(headers, upgrade);
    strip_own(headers);
}

/// Removes what may be no trailer, since who merges the two would believe it: fields that frame, route or
/// authenticate a message (RFC 9110, 6.5.1), and those that only the platform may set.
pub(super) fn strip_trailers(trailers: &mut HeaderMap) {
    let forbidden = |name: &HeaderName| {
        let name = name.as_str().replace('_', "-");
        let message = matches!(
            name.as_str(),
            "host" | "content-length" | "content-encoding" | "content-type" | "content-range" | "trailer"
        );
        let identity =
            matches!(name.as_str(), "authorization" | "cookie" | "set-cookie" | "forwarded" | "x-real-ip");
        message
            || identity
            || name.starts_with("x-forwarded-")
            || name.starts_with(OWN)
            || is_hop_by_hop(&name)
    };
    let forbidden: Vec<_> = trailers.keys().filter(|name| forbidden(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// Whether a request asks to switch to WebSocket.
pub(super) fn asks_to_switch(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let protocol = protocols.next().is_some_and(|one| one.as_bytes().eq_ignore_ascii_case(WEBSOCKET));
    protocol && protocols.next().is_none()
}

/// Cleans what a Worker answered. Its length is what its body really has: a field that claims
/// another is removed, where there is a body to measure.
pub(super) fn strip_response(response: &mut Response<Body>, method: &Method) {
    let upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    if has_any(headers) {
        strip_hop_by_hop(headers, upgrade);
        strip_own(headers);
    }
    let no_body = *method == Method::HEAD || response.status() == StatusCode::NOT_MODIFIED;
    if !no_body {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_listed_in_connection_end_here() {
        let mut headers = HeaderMap::new();
        headers.append(CONNECTION, HeaderValue::from_static("close, x-mine"));
        headers.append(CONNECTION, HeaderValue::from_static("Keep-Alive"));
        headers.insert("x-mine", HeaderValue::from_static("1"));
        headers.insert("keep-alive", HeaderValue::from_static("5"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("cloister-dispatch", HeaderValue::from_static("victim"));
        headers.insert("x-yours", HeaderValue::from_static("1"));
        strip_request(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-yours"]);
    }

    #[test]
    fn each_field_ends_here_also_alone() {
        let own = [HeaderName::from_static("cloister-x"), HeaderName::from_static("cloister_x")];
        for name in HOP_BY_HOP.iter().chain(&own) {
            let mut response = Response::new(Body::empty());
            response.headers_mut().insert(name, HeaderValue::from_static("x"));
            strip_response(&mut response, &Method::GET);
            assert!(response.headers().is_empty(), "{name} in a response");
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("x"));
            strip_request(&mut headers);
            assert!(headers.is_empty(), "{name}");
        }
    }

    #[test]
    fn lookalikes_of_protected_fields_end_here() {
        let mut headers = HeaderMap::new();
        for name in ["cloister_ray", "x_real-ip", "x_fine"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        strip_request(&mut headers);
        strip_lookalikes(&mut headers, |name| name == "x-real-ip");
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x_fine"]);
    }

    #[test]
    fn trailers_say_nothing_of_the_message_or_its_sender() {
        let mut trailers = HeaderMap::new();
        for name in
            ["cloister-ray", "cloister_ray", "host", "te", "x-forwarded-for", "x_real_ip", "authorization"]
        {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        for name in ["grpc-status", "x-checksum", "server-timing"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        strip_trailers(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["grpc-status", "server-timing", "x-checksum"]);
    }

    #[test]
    fn an_upgrade_is_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        strip_request(&mut headers);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        for other in ["h2c", "websocket, h2c", "TLS/1.0"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static(other));
            headers.insert("http2-settings", HeaderValue::from_static("AAMAAABkAAQAAP__"));
            strip_request(&mut headers);
            assert!(headers.is_empty(), "{other}");
        }
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        let mut response = Response::new(Body::full("abc"));
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("9"));
        strip_response(&mut response, &Method::GET);
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
    }
}
