//! Bindings: what the Worker was given by name.

use std::fmt;
use std::sync::Arc;

use cloister_ipc::control::EnvBinding;
use cloister_ipc::worker::Target;
use serde::de::DeserializeOwned;

use crate::dispatch::{Dispatcher, Fetcher};
use crate::error::BindingError;
use crate::invocation::Invocation;

/// The Worker's bindings, as seen by one request.
///
/// Cheap to clone. Services get it as a request extension: `axum::Extension<Env>`.
#[derive(Clone)]
pub struct Env {
    invocation: Arc<Invocation>,
}

/// Names only: values may be secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

fn kind(binding: &EnvBinding) -> &'static str {
    match binding {
        EnvBinding::Text(_) => "plain_text",
        EnvBinding::Secret(_) => "secret_text",
        EnvBinding::Json(_) => "json",
        EnvBinding::DispatchNamespace { .. } => "dispatch_namespace",
        EnvBinding::Service { .. } => "service",
    }
}

impl Env {
    pub(crate) fn new(invocation: Arc<Invocation>) -> Self {
        Self { invocation }
    }

    /// Names of all bindings.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.invocation.start.env.iter().map(|(name, _)| name.as_str())
    }

    fn find(&self, name: &str) -> Result<&EnvBinding, BindingError> {
        let found = self.invocation.start.env.iter().find(|(key, _)| key == name);
        found.map(|(_, binding)| binding).ok_or_else(|| BindingError::Missing(name.to_owned()))
    }

    /// A `plain_text` binding.
    pub fn var(&self, name: &str) -> Result<&str, BindingError> {
        match self.find(name)? {
            EnvBinding::Text(text) => Ok(text),
            other => Err(wrong(name, other, "plain_text")),
        }
    }

    /// A `secret_text` binding.
    pub fn secret(&self, name: &str) -> Result<&str, BindingError> {
        match self.find(name)? {
            EnvBinding::Secret(text) => Ok(text),
            other => Err(wrong(name, other, "secret_text")),
        }
    }

    /// A `json` binding, read as a `T`.
    pub fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T, BindingError> {
        match self.find(name)? {
            EnvBinding::Json(text) => serde_json::from_str(text)
                .map_err(|source| BindingError::Json { name: name.to_owned(), source }),
            other => Err(wrong(name, other, "json")),
        }
    }

    /// A `dispatch_namespace` binding: the way to the user Workers of a namespace.
    pub fn dispatcher(&self, name: &str) -> Result<Dispatcher, BindingError> {
        match self.find(name)? {
            EnvBinding::DispatchNamespace { .. } => Ok(Dispatcher::new(self.invocation.clone(), name)),
            other => Err(wrong(name, other, "dispatch_namespace")),
        }
    }

    /// A `service` binding: the way to another Worker of the account.
    pub fn service(&self, name: &str) -> Result<Fetcher, BindingError> {
        match self.find(name)? {
            EnvBinding::Service { .. } => {
                Ok(Fetcher::new(self.invocation.clone(), Target::Service { binding: name.to_owned() }))
            }
            other => Err(wrong(name, other, "service")),
        }
    }
}

fn wrong(name: &str, found: &EnvBinding, wanted: &'static str) -> BindingError {
    BindingError::Kind { name: name.to_owned(), is: kind(found), wanted }
}
