//! What is asked of the policy.

use std::fmt;

use http::{Method, Uri};

use super::host::{Host, HostError};
use super::path::NormalPath;

/// Scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The port when none is given.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a request goes, each part in the one form that rules compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Scheme.
    pub scheme: Scheme,
    /// Host.
    pub host: Host,
    /// Port, 1 to 65535.
    pub port: u16,
    /// Path without query.
    pub path: NormalPath,
}

/// Text that is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No scheme or no host.
    #[error("{0:?} is not an absolute URI")]
    Relative(String),
    /// Neither http nor https.
    #[error("scheme {0:?} is not supported (allowed: http, https)")]
    Scheme(String),
    /// User name or password in front of the host.
    #[error("a user name in the URI is not allowed")]
    UserInfo,
    /// Not a port.
    #[error("{0:?} has no port from 1 to 65535")]
    Port(String),
    /// Not a host.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Target {
    /// Takes an absolute `http` or `https` URI apart.
    ///
    /// # Errors
    /// [`TargetError`] when it is something else, or can be read in two ways.
    pub fn from_uri(uri: &Uri) -> Result<Self, TargetError> {
        let shown = || uri.to_string().chars().take(120).collect::<String>();
        let scheme = match uri.scheme_str() {
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
            Some(scheme) => return Err(TargetError::Scheme(scheme.chars().take(40).collect())),
            None => return Err(TargetError::Relative(shown())),
        };
        let authority = uri.authority().ok_or_else(|| TargetError::Relative(shown()))?.as_str();
        let (host, port) = split_authority(authority)?;
        let port = port.unwrap_or(scheme.default_port());
        Ok(Self { scheme, host, port, path: NormalPath::parse(uri.path()) })
    }

    /// What is asked with `method`.
    #[must_use]
    pub const fn asked<'a>(&'a self, method: &'a Method) -> Asked<'a> {
        Asked {
            scheme: self.scheme,
            host: &self.host,
            port: self.port,
            content: Content::Request { method, path: &self.path },
        }
    }

    /// Host, and port unless it is the scheme's own: what belongs in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Splits `host[:port]`; no user information.
///
/// # Errors
/// As [`Target::from_uri`].
pub fn split_authority(authority: &str) -> Result<(Host, Option<u16>), TargetError> {
    if authority.contains('@') {
        return Err(TargetError::UserInfo);
    }
    // A colon inside brackets belongs to the address.
    let colon = authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|end| end < *colon));
    let Some(colon) = colon else { return Ok((Host::parse(authority)?, None)) };
    let (host, port) = (authority.get(..colon).unwrap_or(""), authority.get(colon + 1..).unwrap_or(""));
    let error = || TargetError::Port(authority.chars().take(120).collect());
    if !port.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(error());
    }
    let port = match port {
        "" => None,
        port => Some(port.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(error)?),
    };
    Ok((Host::parse(host)?, port))
}

/// What is asked of the policy.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Scheme; of a tunnel `https`, since only TLS may pass through one.
    pub scheme: Scheme,
    /// Host.
    pub host: &'a Host,
    /// Port.
    pub port: u16,
    /// What is inside.
    pub content: Content<'a>,
}

/// What can be seen of a request.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// All of it.
    Request {
        /// Method.
        method: &'a Method,
        /// Path.
        path: &'a NormalPath,
    },
    /// A tunnel (CONNECT) that hides it.
    Tunnel,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(uri: &str) -> Result<Target, TargetError> {
        Target::from_uri(&uri.parse().unwrap())
    }

    #[test]
    fn parts() {
        let parsed = target("HTTPS://API.Example.com.:8443//a/../b?q=1").unwrap();
        assert_eq!(parsed.scheme, Scheme::Https);
        assert_eq!(parsed.host.to_string(), "api.example.com");
        assert_eq!(parsed.port, 8443);
        assert_eq!(parsed.path.as_str(), "/b");
        assert_eq!(parsed.authority(), "api.example.com:8443");
        assert_eq!(target("http://a").unwrap().port, 80);
        assert_eq!(target("https://a:/").unwrap().port, 443);
        assert_eq!(target("http://[::1]:81/").unwrap().authority(), "[::1]:81");
        assert_eq!(target("http://[::1]/").unwrap().authority(), "[::1]");
    }

    #[test]
    fn what_is_no_target() {
        assert!(matches!(target("/a"), Err(TargetError::Relative(_))));
        assert!(matches!(target("ftp://a/"), Err(TargetError::Scheme(_))));
        assert!(matches!(target("http://good.com@evil.com/"), Err(TargetError::UserInfo)));
        assert!(matches!(target("http://good.com:80@evil.com/"), Err(TargetError::UserInfo)));
        assert!(matches!(target("http://a:0/"), Err(TargetError::Port(_))));
        for authority in ["a:65536", "a:-1", "a:8o", "a:+80", "a:80:90", "[::1]x:80", "::1"] {
            assert!(split_authority(authority).is_err(), "{authority}");
        }
    }
}
