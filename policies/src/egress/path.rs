//! Paths in one form, and the refusal to guess.
//!
//! Servers disagree about `%2f`, `..;/`, `//` and double encoding. A path is therefore brought
//! into one form, which is also what is sent when the policy judges by path; and what has no one
//! form is *ambiguous*: it never matches a rule that permits, and always one that denies.

/// A request's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath {
    sent: String,
    decoded: Vec<Vec<u8>>,
    trailing_slash: bool,
    ambiguous: Option<&'static str>,
}

impl NormalPath {
    /// Brings `raw` (no query) into the one form: percent-encoded unreserved characters decoded,
    /// empty and `.` segments dropped, `..` resolved; what is over the root is dropped.
    #[must_use]
    pub fn parse(raw: &str) -> Self {
        let mut ambiguous = (!raw.starts_with('/')).then_some("does not begin with a slash");
        let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
        let mut trailing_slash = true;
        for segment in raw.split('/').skip(usize::from(raw.starts_with('/'))) {
            let (sent, decoded, odd) = decode(segment);
            ambiguous = ambiguous.or(odd);
            trailing_slash = matches!(decoded.as_slice(), b"" | b"." | b"..");
            match decoded.as_slice() {
                b"" | b"." => {}
                b".." => drop(kept.pop()),
                _ => kept.push((sent, decoded)),
            }
        }
        let mut sent = String::with_capacity(raw.len());
        for (segment, _) in &kept {
            sent.push('/');
            sent.push_str(segment);
        }
        if trailing_slash || sent.is_empty() {
            sent.push('/');
        }
        let decoded = kept.into_iter().map(|(_, decoded)| decoded).collect();
        Self { sent, decoded, trailing_slash, ambiguous }
    }

    /// The one form, percent-encoded as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.sent
    }

    /// Why servers may read it differently, if they may.
    #[must_use]
    pub const fn ambiguous(&self) -> Option<&'static str> {
        self.ambiguous
    }
}

/// One segment: as it is sent, as it is compared, and what makes it ambiguous.
fn decode(segment: &str) -> (String, Vec<u8>, Option<&'static str>) {
    let mut sent = String::with_capacity(segment.len());
    let mut decoded = Vec::with_capacity(segment.len());
    let mut odd = None;
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, encoded) = match (first, after) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = tail;
                    (high << 4 | low, true)
                }
                _ => {
                    rest = after;
                    odd = odd.or(Some("has a percent sign that encodes nothing"));
                    (b'%', true)
                }
            },
            (b'%', _) => {
                rest = after;
                odd = odd.or(Some("has a percent sign that encodes nothing"));
                (b'%', true)
            }
            _ => {
                rest = after;
                (first, false)
            }
        };
        odd = odd.or(match byte {
            b'/' => Some("has an encoded slash"),
            b'\\' => Some("has a backslash"),
            b';' => Some("has a path parameter (`;`)"),
            b'%' => Some("is encoded twice"),
            b'?' | b'#' => Some("has an encoded `?` or `#`"),
            0..=0x1f | 0x7f => Some("has a control character"),
            _ => None,
        });
        decoded.push(byte);
        let unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if unreserved || (!encoded && byte.is_ascii_graphic()) {
            sent.push(char::from(byte));
        } else {
            sent.push('%');
            for digit in [byte >> 4, byte & 15] {
                sent.push(char::from_digit(digit.into(), 16).map_or('0', |c| c.to_ascii_uppercase()));
            }
        }
    }
    if std::str::from_utf8(&decoded).is_err() {
        odd = odd.or(Some("is not UTF-8"));
    }
    (sent, decoded, odd)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A pattern of paths: literal segments; `*` for one segment; `*` at the end for whatever follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    /// `None` is one segment of any text.
    segments: Vec<Option<Vec<u8>>>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The path ends here, without a slash.
    Here,
    /// With a slash.
    Slash,
    /// A slash and whatever follows.
    Rest,
}

/// Text that is not a path pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathPatternError {
    /// No slash in front.
    #[error("{0:?} does not begin with a slash")]
    Relative(String),
    /// `*` beside other text.
    #[error("`*` in {0:?} is not a whole segment")]
    PartialWildcard(String),
    /// It would be compared in another form than it is written.
    #[error("{text:?} is not in normal form, write {normal:?}")]
    NotNormal {
        /// As written.
        text: String,
        /// The same, normal.
        normal: String,
    },
    /// No request could match it.
    #[error("{text:?} {reason}: no request can match it")]
    Ambiguous {
        /// As written.
        text: String,
        /// Why.
        reason: &'static str,
    },
}

impl PathPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// [`PathPatternError`] when it could not match what its author meant.
    pub fn parse(text: &str) -> Result<Self, PathPatternError> {
        if !text.starts_with('/') {
            return Err(PathPatternError::Relative(text.into()));
        }
        if text.split('/').any(|segment| segment.contains('*') && segment != "*") {
            return Err(PathPatternError::PartialWildcard(text.into()));
        }
        if text.contains(['?', '#']) {
            let reason = "has a `?` or `#`; queries are not judged";
            return Err(PathPatternError::Ambiguous { text: text.into(), reason });
        }
        let normal = NormalPath::parse(text);
        if let Some(reason) = normal.ambiguous {
            return Err(PathPatternError::Ambiguous { text: text.into(), reason });
        }
        if normal.sent != text {
            return Err(PathPatternError::NotNormal { text: text.into(), normal: normal.sent });
        }
        let mut segments: Vec<_> =
            normal.decoded.into_iter().map(|segment| (segment != b"*").then_some(segment)).collect();
        let end = match segments.last() {
            _ if normal.trailing_slash => End::Slash,
            Some(None) => {
                segments.pop();
                End::Rest
            }
            _ => End::Here,
        };
        Ok(Self { text: text.into(), segments, end })
    }

    /// Whether `path`, read in its one form, is meant.
    #[must_use]
    pub fn matches(&self, path: &NormalPath) -> bool {
        let Some(head) = path.decoded.get(..self.segments.len()) else { return false };
        let same = self.segments.iter().zip(head).all(|(pattern, segment)| match pattern {
            None => true,
            Some(literal) => literal == segment,
        });
        let longer = path.decoded.len() > self.segments.len();
        same && match self.end {
            End::Here => !longer && !path.trailing_slash,
            End::Slash => !longer && path.trailing_slash,
            End::Rest => longer || path.trailing_slash,
        }
    }

    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        PathPattern::parse(pattern).unwrap().matches(&NormalPath::parse(path))
    }

    #[test]
    fn one_form() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("//a///b", "/a/b"),
            ("/a/./b/", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61%7e", "/a~"),
            ("/a%20b", "/a%20b"),
            ("/a%c3%a9", "/a%C3%A9"),
            ("/a%40b", "/a%40b"),
            ("/v1//../admin", "/admin"),
        ] {
            let path = NormalPath::parse(raw);
            assert_eq!(path.as_str(), normal, "{raw}");
            assert_eq!(path.ambiguous(), None, "{raw}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_ambiguous() {
        for raw in [
            "/v1/..%2fadmin",
            "/v1/%2e%2e%2fadmin",
            "/v1%5c..%5cadmin",
            "/v1/..\\admin",
            "/v1/..;/admin",
            "/admin;x=1/a",
            "/%252e%252e/admin",
            "/a%",
            "/a%zz",
            "/a%00",
            "/%c0%ae%c0%ae/admin",
            "/a%3fb",
            "/a%23b",
            "*",
        ] {
            assert!(NormalPath::parse(raw).ambiguous().is_some(), "{raw}");
        }
    }

    #[test]
    fn patterns() {
        assert!(matches("/v1/*", "/v1/charges"));
        assert!(matches("/v1/*", "/v1/"));
        assert!(matches("/v1/*", "/v1/a/b/c"));
        assert!(!matches("/v1/*", "/v1"));
        assert!(!matches("/v1/*", "/v10/a"));
        assert!(!matches("/v1/*", "/v1/../admin"));
        assert!(!matches("/v1/*", "/v1/%2e%2e/admin"));
        assert!(matches("/*", "/"));
        assert!(matches("/*", "/anything/at/all"));
        assert!(matches("/", "/"));
        assert!(!matches("/", "/a"));
        assert!(matches("/users/*/posts", "/users/7/posts"));
        assert!(!matches("/users/*/posts", "/users/7/8/posts"));
        assert!(!matches("/users/*/posts", "/users/posts"));
        assert!(!matches("/a", "/a/"));
        assert!(matches("/a/", "/a/"));
        assert!(matches("/a@b", "/a%40b"));
        assert!(matches("/a%20b", "/a%20b"));
        assert!(!matches("/Admin", "/admin"));
    }

    #[test]
    fn patterns_that_mean_something_else_are_refused() {
        for text in
            ["v1", "/v1*", "/v*/a", "/a//b", "/a/../b", "/%61", "/a;b", "/a%2fb", "/a?b", "/a%c3%a9/%zz", ""]
        {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn normal_form_is_stable(raw in "/[a-z./%2e5cF;~ -]{0,30}") {
            let once = NormalPath::parse(&raw);
            let twice = NormalPath::parse(once.as_str());
            prop_assert_eq!(once.as_str(), twice.as_str());
            if once.ambiguous().is_none() {
                prop_assert_eq!(&once.decoded, &twice.decoded);
                prop_assert!(twice.ambiguous().is_none());
            }
        }

        #[test]
        fn no_dots_leave_an_allowed_folder(raw in "/v1/([a-z.]|/|%2e|%2E|%2f|//){0,20}") {
            let path = NormalPath::parse(&raw);
            let pattern = PathPattern::parse("/v1/*").unwrap();
            if path.ambiguous().is_none() && pattern.matches(&path) {
                prop_assert!(path.as_str().starts_with("/v1/"));
                prop_assert!(!path.as_str().contains("/../"));
            }
        }
    }
}
