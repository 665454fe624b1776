//! Header fields that only the platform may set: for the doors that clients, Workers and servers come through.

use http::{HeaderMap, HeaderName};

/// Prefix of the platform's own fields; nobody else may set them.
pub(crate) const OWN: &str = "cloister-";

/// Removes fields whose names only differ from a protected one by `_` for `-`: servers that hand
/// fields on as variables (CGI, WSGI) can't tell the two apart.
pub(crate) fn strip_lookalikes(headers: &mut HeaderMap, protected: impl Fn(&str) -> bool) {
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
pub(crate) fn strip_own(headers: &mut HeaderMap) {
    strip_lookalikes(headers, |name| name.starts_with(OWN));
    if headers.keys().any(|name| name.as_str().starts_with(OWN)) {
        let own: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OWN)).cloned().collect();
        for name in own {
            headers.remove(name);
        }
    }
}
