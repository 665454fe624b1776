//! Header values with secrets in them.

use std::fmt;

use http::{HeaderName, HeaderValue};

/// The value a rule sets a header to; `${secret:NAME}` stands for a secret of the Worker.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderTemplate(Vec<Part>);

#[derive(Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(String),
}

/// Why a header value could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderTemplateError {
    /// `${` without what may follow it.
    #[error("`${{` must be followed by `secret:NAME}}`, NAME of letters, digits and `_`")]
    Placeholder,
    /// Not a field value.
    #[error("it has characters that a header value cannot have")]
    Value,
    /// The Worker has no such secret.
    #[error("the Worker has no secret `{0}`")]
    NoSecret(String),
    /// The secret can't stand in a header.
    #[error("secret `{0}` has characters that a header value cannot have")]
    SecretValue(String),
}

const OPEN: &str = "${";
const SECRET: &str = "secret:";

impl HeaderTemplate {
    /// Parses a value.
    ///
    /// # Errors
    /// [`HeaderTemplateError::Placeholder`] and [`HeaderTemplateError::Value`].
    pub fn parse(text: &str) -> Result<Self, HeaderTemplateError> {
        HeaderValue::from_str(text).map_err(|_| HeaderTemplateError::Value)?;
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            let (name, after) = after
                .strip_prefix(SECRET)
                .and_then(|after| after.split_once('}'))
                .ok_or(HeaderTemplateError::Placeholder)?;
            let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !valid {
                return Err(HeaderTemplateError::Placeholder);
            }
            parts.push(Part::Secret(name.into()));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self(parts))
    }

    /// The value, with `secret` asked for each secret; marked sensitive when it holds one.
    ///
    /// # Errors
    /// [`HeaderTemplateError::NoSecret`] and [`HeaderTemplateError::SecretValue`].
    pub fn render(
        &self,
        secret: impl Fn(&str) -> Option<String>,
    ) -> Result<HeaderValue, HeaderTemplateError> {
        let mut text = String::new();
        let mut last_secret = None;
        for part in &self.0 {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Secret(name) => {
                    let value = secret(name).ok_or_else(|| HeaderTemplateError::NoSecret(name.clone()))?;
                    HeaderValue::from_str(&value)
                        .map_err(|_| HeaderTemplateError::SecretValue(name.clone()))?;
                    text.push_str(&value);
                    last_secret = Some(name);
                }
            }
        }
        let mut value = HeaderValue::try_from(text).map_err(|_| HeaderTemplateError::Value)?;
        value.set_sensitive(last_secret.is_some());
        Ok(value)
    }

    /// Names of the secrets it needs.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Secret(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }
}

impl fmt::Debug for HeaderTemplate {
    /// As written in the file: it holds names of secrets, not secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Secret(name) => write!(f, "{OPEN}{SECRET}{name}}}")?,
            }
        }
        Ok(())
    }
}

/// Whether a header belongs to the connection or says who is asked, so that no rule may touch it.
#[must_use]
pub fn is_reserved(name: &HeaderName) -> bool {
    const RESERVED: [&str; 12] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "upgrade",
        "expect",
    ];
    RESERVED.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_put_in() {
        let template = HeaderTemplate::parse("Bearer ${secret:KEY}-${secret:B}!").unwrap();
        assert_eq!(template.secrets().collect::<Vec<_>>(), ["KEY", "B"]);
        let value = template.render(|name| Some(format!("<{name}>"))).unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer <KEY>-<B>!");
        assert!(value.is_sensitive());
        assert_eq!(format!("{template:?}"), "Bearer ${secret:KEY}-${secret:B}!");
        assert!(!HeaderTemplate::parse("plain $ {x}").unwrap().render(|_| None).unwrap().is_sensitive());
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for text in ["${env:X}", "${secret:}", "${secret:A", "${", "${secret:a-b}"] {
            assert_eq!(HeaderTemplate::parse(text), Err(HeaderTemplateError::Placeholder), "{text}");
        }
        assert_eq!(HeaderTemplate::parse("a\r\nb: c"), Err(HeaderTemplateError::Value));
        let template = HeaderTemplate::parse("${secret:A}").unwrap();
        assert_eq!(template.render(|_| None), Err(HeaderTemplateError::NoSecret("A".into())));
        let injected = template.render(|_| Some("a\r\nx: y".into()));
        assert_eq!(injected, Err(HeaderTemplateError::SecretValue("A".into())));
        assert!(is_reserved(&http::header::HOST));
        assert!(!is_reserved(&http::header::AUTHORIZATION));
    }
}
