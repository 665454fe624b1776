//! Header fields that end at the platform: hop-by-hop ones, and its own.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};

use crate::body::Body;
use crate::egress::wants_websocket;
use crate::fields::{OWN, strip_own};

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

/// Cleans a request before a Worker gets it, from a client or from another Worker.
pub fn strip_request(method: &Method, version: Version, headers: &mut HeaderMap) {
    if !has_any(headers) {
        return;
    }
    let upgrade = asks_to_switch(method, version, headers);
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

/// Whether a request asks to switch to WebSocket, the one protocol that a connection may switch to: after another
/// one nobody could tell what passes. A proxy in front that passed `Upgrade` on, and nothing else, did not ask:
/// it goes on to send requests, and would have them taken for the WebSocket's bytes.
pub(super) fn asks_to_switch(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11 && wants_websocket(method, headers)
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
    let headers = response.headers_mut();
    if !no_body || !has_one_length(headers) {
        headers.remove(CONTENT_LENGTH);
    }
}

/// Whether a length is said, once, and is one: with two of them a client could not tell where the next answer
/// begins.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(one), None) = (lengths.next(), lengths.next()) else { return false };
    let digits = one.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.is_some_and(|digits| digits.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::strip_lookalikes;

    /// Cleans the headers of a GET of HTTP/1.1.
    fn strip(headers: &mut HeaderMap) {
        strip_request(&Method::GET, Version::HTTP_11, headers);
    }

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
        strip(&mut headers);
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
            strip(&mut headers);
            assert!(headers.is_empty(), "{name}");
        }
    }

    #[test]
    fn lookalikes_of_protected_fields_end_here() {
        let mut headers = HeaderMap::new();
        for name in ["cloister_ray", "x_real-ip", "x_fine"] {
            headers.insert(name, HeaderValue::from_static("1"));
        }
        strip(&mut headers);
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
        strip(&mut headers);
        assert_eq!(headers[CONNECTION], "upgrade");
        assert_eq!(headers[UPGRADE], "websocket");
        for other in ["h2c", "websocket, h2c", "TLS/1.0"] {
            let mut headers = HeaderMap::new();
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static(other));
            headers.insert("http2-settings", HeaderValue::from_static("AAMAAABkAAQAAP__"));
            strip(&mut headers);
            assert!(headers.is_empty(), "{other}");
        }
    }

    #[test]
    fn who_did_not_ask_for_an_upgrade_gets_none() {
        let kept = |method: Method, version: Version, connection: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            for value in connection {
                headers.append(CONNECTION, HeaderValue::from_static(value));
            }
            strip_request(&method, version, &mut headers);
            assert_eq!(asks_to_switch(&method, version, &headers), headers.contains_key(UPGRADE));
            headers.contains_key(UPGRADE)
        };
        let (get, new) = (Method::GET, Version::HTTP_11);
        assert!(kept(get.clone(), new, &["keep-alive", "Upgrade"]));
        assert!(!kept(get.clone(), new, &[]));
        assert!(!kept(get.clone(), new, &["keep-alive, x-upgrade"]));
        assert!(!kept(Method::POST, new, &["upgrade"]));
        assert!(!kept(get.clone(), Version::HTTP_10, &["upgrade"]));
        assert!(!kept(get, Version::HTTP_2, &["upgrade"]));
    }

    #[test]
    fn where_no_body_is_measured_one_length_is_kept() {
        let kept = |method: &Method, status: StatusCode, lengths: &[&'static str]| {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = status;
            for length in lengths {
                response.headers_mut().append(CONTENT_LENGTH, HeaderValue::from_static(length));
            }
            strip_response(&mut response, method);
            response.headers().get_all(CONTENT_LENGTH).iter().count()
        };
        for (method, status) in [(Method::HEAD, StatusCode::OK), (Method::GET, StatusCode::NOT_MODIFIED)] {
            assert_eq!(kept(&method, status, &["9"]), 1);
            let odd: [&[&str]; 7] =
                [&[], &["9", "7"], &["9", "9"], &["9, 9"], &["+9"], &[""], &["99999999999999999999"]];
            for lengths in odd {
                assert_eq!(kept(&method, status, lengths), 0, "{lengths:?}");
            }
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
