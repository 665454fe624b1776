//! The file as written: shapes and defaults only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::pattern::{HostPattern, NameTemplate, PathPattern};
use super::route::RateLimit;
use super::settings::LogFormat;
use crate::egress::EgressConfig;
use crate::limits::Limits;
use crate::registry::Name;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default = "default_state")]
    pub(super) state: PathBuf,
    pub(super) user: Option<String>,
    #[serde(default = "Name::default_account")]
    pub(super) account: Name,
    #[serde(default)]
    pub(super) listen: Listen,
    #[serde(default)]
    pub(super) runtime: Runtime,
    #[serde(default)]
    pub(super) sandbox: Sandbox,
    #[serde(default)]
    pub(super) pool: Pool,
    #[serde(default)]
    pub(super) egress: EgressConfig,
    #[serde(default)]
    pub(super) telemetry: Telemetry,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) route: Vec<Spanned<Route>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) http: Vec<SocketAddr>,
    pub(super) admin_socket: PathBuf,
    pub(super) admin_users: Vec<String>,
    pub(super) admin_tcp: Option<Spanned<SocketAddr>>,
    pub(super) admin_token_file: Option<Spanned<PathBuf>>,
    pub(super) upload_bytes: NonZeroU64,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            http: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            admin_socket: PathBuf::from("/run/cloister/admin.sock"),
            admin_users: Vec::new(),
            admin_tcp: None,
            admin_token_file: None,
            upload_bytes: NonZeroU64::MIN.saturating_add((512 << 20) - 1),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Runtime {
    pub(super) threads: Option<Spanned<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Sandbox {
    pub(super) runner: Option<PathBuf>,
    pub(super) policy: Option<PathBuf>,
    pub(super) uid_base: Spanned<u32>,
    pub(super) uid_count: Spanned<u32>,
    pub(super) waive: Vec<Spanned<String>>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            runner: None,
            policy: None,
            uid_base: Spanned::new(0..0, 200_000),
            uid_count: Spanned::new(0..0, 65_536),
            waive: Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Pool {
    pub(super) blanks: u32,
    pub(super) start_timeout_ms: NonZeroU32,
    pub(super) idle_ms: NonZeroU64,
    pub(super) memory_bytes: Option<NonZeroU64>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            blanks: 4,
            start_timeout_ms: NonZeroU32::MIN.saturating_add(9_999),
            idle_ms: NonZeroU64::MIN.saturating_add(59_999),
            memory_bytes: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Telemetry {
    pub(super) log: Spanned<String>,
    pub(super) format: LogFormat,
    pub(super) server_timing: bool,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log: Spanned::new(0..0, "info".to_owned()), format: LogFormat::Text, server_timing: false }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    #[serde(default)]
    pub(super) host: HostPattern,
    #[serde(default)]
    pub(super) path: PathPattern,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Spanned<String>>,
    pub(super) worker: Option<Spanned<NameTemplate>>,
    pub(super) namespace: Option<Spanned<Name>>,
    pub(super) dispatch: Option<Spanned<Name>>,
    #[serde(default)]
    pub(super) limits: Limits,
    pub(super) rate_limit: Option<RateLimit>,
}

fn default_state() -> PathBuf {
    PathBuf::from("/var/lib/cloister")
}
