//! Validated names out of paths and queries.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;

use super::error::ApiError;
use super::platform::Platform;
use crate::registry::{Name, WorkerId};
use crate::store::{Filter, Page};

/// Most entries of a list in one answer.
const PER_PAGE: u64 = 10_000;

/// `{namespace}` of the path.
#[derive(Debug, Clone)]
pub(super) struct NamespaceName(pub(super) Name);

/// The Worker that `{namespace}` (absent: the account) and `{script}` of the path name.
#[derive(Debug, Clone)]
pub(super) struct Script(pub(super) WorkerId);

/// Another parameter of the path, by position: `{item}`.
#[derive(Debug, Clone)]
pub(super) struct Item(pub(super) String);

async fn param<S: Send + Sync>(parts: &mut Parts, state: &S, name: &str) -> Result<Option<String>, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| ApiError::invalid(error.body_text()))?;
    Ok(params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
}

impl<S: Send + Sync> FromRequestParts<S> for NamespaceName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let name = param(parts, state, "namespace").await?.unwrap_or_default();
        Ok(Self(Name::parse(&name)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Script {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let namespace = param(parts, state, "namespace").await?;
        let namespace = namespace.map(|name| Name::parse(&name)).transpose()?;
        let script = Name::parse(&param(parts, state, "script").await?.unwrap_or_default())?;
        Ok(Self(WorkerId { namespace: namespace.map(|name| name.shared()), name: script.shared() }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Item {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(param(parts, state, "item").await?.unwrap_or_default()))
    }
}

/// The query, with every key looked at: what nobody takes is refused by name.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::invalid(error.body_text()))?;
        let mut map = BTreeMap::new();
        for (key, value) in query.0 {
            if map.insert(key.clone(), value).is_some() {
                return Err(ApiError::invalid(format!("query: {key} is there twice")));
            }
        }
        Ok(Self(map))
    }
}

impl Query {
    /// Takes a value.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    /// Refuses what is left.
    pub(super) fn done(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(key) => {
                let key = key.chars().take(80).collect::<String>();
                Err(ApiError::invalid(format!("query: {key:?} is not supported here")))
            }
        }
    }

    /// `tags=a:yes,b:no` as Cloudflare writes it.
    pub(super) fn filter(&mut self) -> Result<Filter, ApiError> {
        let mut filter = Filter::default();
        let text = self.take("tags").unwrap_or_default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once(':') {
                Some((tag, "yes")) => filter.with.push(tag.to_owned()),
                Some((tag, "no")) => filter.without.push(tag.to_owned()),
                _ => {
                    return Err(ApiError::invalid(
                        "query: tags: write tag:yes or tag:no, separated by commas",
                    ));
                }
            }
        }
        Ok(filter)
    }

    /// `page` (from 1) and `per_page`.
    pub(super) fn page(&mut self) -> Result<(u64, Page), ApiError> {
        let mut number = |key: &str, default: u64, most: u64| match self.take(key) {
            None => Ok(default),
            Some(text) => match text.parse::<u64>() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(ApiError::invalid(format!("query: {key}: allowed are 1 to {most}"))),
            },
        };
        let page = number("page", 1, u64::from(u32::MAX))?;
        let limit = number("per_page", PER_PAGE, PER_PAGE)?;
        Ok((page, Page { offset: (page - 1).saturating_mul(limit), limit }))
    }
}

/// Lets only requests to this machine's account through.
pub(super) async fn account(
    State(platform): State<Arc<Platform>>,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let account = params.iter().find(|(key, _)| *key == "account").map(|(_, value)| value);
    if account == Some(platform.settings.account.as_str()) {
        return next.run(request).await;
    }
    let known = &platform.settings.account;
    ApiError {
        status: http::StatusCode::NOT_FOUND,
        code: 7003,
        message: format!("there is no such account here; this machine's account is {known} (key `account` of cloister.toml)"),
    }
    .into_response()
}
