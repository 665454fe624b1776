//! The validated configuration.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::error::ConfigError;
use super::pattern::{HostPattern, NameTemplate};
use super::route::{Route, RouteTarget, Routing};
use super::{FILE_BYTES, SupervisorWall, raw};
use crate::egress::EgressConfig;
use crate::launch::Wall;
use crate::limits::Limits;
use crate::registry::Name;

/// A whole valid `cloister.toml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// State folder: database, binaries, keys.
    pub state: PathBuf,
    /// System account the supervisor becomes when it is started as root; see
    /// [`Config::account_name`].
    pub user: Option<String>,
    /// The account in API paths; another one is not found.
    pub account: Name,
    /// Where it listens.
    pub listen: Listen,
    /// Data plane threads.
    pub runtime: Runtime,
    /// Sandbox.
    pub sandbox: Sandbox,
    /// Processes of Workers.
    pub pool: Pool,
    /// Egress filter.
    pub egress: EgressConfig,
    /// Log and timing.
    pub telemetry: Telemetry,
    /// Ceilings for every invocation.
    pub limits: Limits,
    /// Routes.
    pub routing: Routing,
}

/// `[listen]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// Addresses of the front door.
    pub http: Vec<SocketAddr>,
    /// Unix socket of the admin API.
    pub admin_socket: PathBuf,
    /// Accounts, besides root and the supervisor's own, that may use the Unix socket.
    pub admin_users: Vec<String>,
    /// TCP listener of the admin API.
    pub admin_tcp: Option<AdminTcp>,
    /// Largest upload, bytes.
    pub upload_bytes: u64,
}

/// Admin API over TCP.
#[derive(Debug, Clone)]
pub struct AdminTcp {
    /// Address.
    pub address: SocketAddr,
    /// File whose first line is the bearer token.
    pub token_file: PathBuf,
}

/// `[runtime]`
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Data plane threads, 1 to 256.
    pub threads: NonZeroUsize,
}

/// `[sandbox]`
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The `sandbox-runner` program; `None`: beside the running `cloister`.
    pub runner: Option<PathBuf>,
    /// The operator's sandbox policy; `None`: the one shipped.
    pub policy: Option<PathBuf>,
    /// Host uids and gids that Workers run as.
    pub uids: Range<u32>,
    /// The walls of Workers that are waived.
    pub waive: BTreeSet<Wall>,
    /// The supervisor's own walls that are waived.
    pub waive_own: BTreeSet<SupervisorWall>,
}

/// `[pool]`
#[derive(Debug, Clone)]
pub struct Pool {
    /// Blanks kept ready for each of the most used specs.
    pub blanks: usize,
    /// How long a Worker may take until it accepts requests.
    pub start_timeout: Duration,
    /// How long a process may sit idle before it is ended.
    pub idle: Duration,
    /// Memory of all live Workers together, bytes; the longest idle ones are ended first.
    pub memory_bytes: Option<u64>,
}

/// `[telemetry]`
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Which log lines are written, as tracing's filter directives.
    pub log: String,
    /// Their form.
    pub format: LogFormat,
    /// Tell clients about each invocation in a `server-timing` header.
    pub server_timing: bool,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// The account that a supervisor started as root becomes: the configured one, or `cloister`.
    #[must_use]
    pub fn account_name(&self) -> &str {
        self.user.as_deref().unwrap_or("cloister")
    }

    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |error| ConfigError::Read { path: path.to_owned(), error };
        let file = std::fs::File::open(path).map_err(read)?;
        let mut text = String::new();
        file.take(FILE_BYTES + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > FILE_BYTES {
            return Err(read(std::io::Error::other(format!("longer than {FILE_BYTES} bytes"))));
        }
        let path = std::path::absolute(path).map_err(read)?;
        Self::parse(&path, &text)
    }

    /// Validates `text` as if it stood in `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mistake = |error: &toml::de::Error, key: String| {
            ConfigError::at(path, text, error.span(), key, error.message())
        };
        let deserializer = toml::Deserializer::parse(text).map_err(|error| mistake(&error, String::new()))?;
        let file: raw::File = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let key = match error.path().to_string() {
                path if path == "." => String::new(),
                path => path,
            };
            mistake(error.inner(), key)
        })?;
        Validator { path, text }.config(file)
    }
}

struct Validator<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Validator<'_> {
    fn error(&self, span: Range<usize>, key: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::at(self.path, self.text, Some(span), key, message)
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path))
    }

    fn config(&self, file: raw::File) -> Result<Config, ConfigError> {
        let routes = file.route.into_iter().enumerate();
        let routes = routes
            .map(|(index, route)| self.route(index, route.span(), route.into_inner()))
            .collect::<Result<_, _>>()?;
        Ok(Config {
            path: self.path.to_owned(),
            state: self.resolve(&file.state),
            user: file.user,
            account: file.account,
            listen: self.listen(file.listen)?,
            runtime: self.runtime(&file.runtime)?,
            sandbox: self.sandbox(file.sandbox)?,
            pool: Pool {
                blanks: file.pool.blanks as usize,
                start_timeout: Duration::from_millis(file.pool.start_timeout_ms.get().into()),
                idle: Duration::from_millis(file.pool.idle_ms.get()),
                memory_bytes: file.pool.memory_bytes.map(NonZeroU64::get),
            },
            egress: EgressConfig {
                policy_dir: file.egress.policy_dir.as_deref().map(|path| self.resolve(path)),
                extra_ca: file.egress.extra_ca.as_deref().map(|path| self.resolve(path)),
                ..file.egress
            },
            telemetry: self.telemetry(file.telemetry)?,
            limits: file.limits,
            routing: Routing { routes },
        })
    }

    fn listen(&self, raw: raw::Listen) -> Result<Listen, ConfigError> {
        let admin_tcp = match (raw.admin_tcp, raw.admin_token_file) {
            (None, None) => None,
            (Some(address), Some(token)) => {
                Some(AdminTcp { address: address.into_inner(), token_file: self.resolve(token.as_ref()) })
            }
            (Some(address), None) => {
                return Err(self.error(
                    address.span(),
                    "listen.admin_tcp",
                    "needs listen.admin_token_file, a file whose first line is the bearer token",
                ));
            }
            (None, Some(token)) => {
                return Err(self.error(
                    token.span(),
                    "listen.admin_token_file",
                    "means nothing without listen.admin_tcp",
                ));
            }
        };
        Ok(Listen {
            http: raw.http,
            admin_socket: self.resolve(&raw.admin_socket),
            admin_users: raw.admin_users,
            admin_tcp,
            upload_bytes: raw.upload_bytes.get(),
        })
    }

    fn runtime(&self, raw: &raw::Runtime) -> Result<Runtime, ConfigError> {
        let Some(threads) = &raw.threads else {
            return Ok(Runtime { threads: crate::runtime::default_threads() });
        };
        match NonZeroUsize::new(*threads.as_ref()).filter(|count| count.get() <= 256) {
            Some(threads) => Ok(Runtime { threads }),
            None => Err(self.error(threads.span(), "runtime.threads", "allowed are 1 to 256")),
        }
    }

    fn sandbox(&self, raw: raw::Sandbox) -> Result<Sandbox, ConfigError> {
        let (base, count) = (*raw.uid_base.as_ref(), *raw.uid_count.as_ref());
        if base < 1000 {
            let message = "allowed is 1000 and more: uids below belong to the system";
            return Err(self.error(raw.uid_base.span(), "sandbox.uid_base", message));
        }
        // The last uid, 2^32-1, means "no uid" to the kernel.
        let end = base.checked_add(count).filter(|&end| count > 0 && end < u32::MAX);
        let Some(end) = end else {
            let message = format!("allowed are 1 to {}", u32::MAX - 1 - base);
            return Err(self.error(raw.uid_count.span(), "sandbox.uid_count", message));
        };
        let (mut waive, mut waive_own) = (BTreeSet::new(), BTreeSet::new());
        for name in &raw.waive {
            match SupervisorWall::ALL.into_iter().find(|wall| wall.name() == name.as_ref()) {
                Some(wall) => drop(waive_own.insert(wall)),
                None => drop(waive.insert(self.wall(name)?)),
            }
        }
        Ok(Sandbox {
            runner: raw.runner.map(|path| self.resolve(&path)),
            policy: raw.policy.map(|path| self.resolve(&path)),
            uids: base..end,
            waive,
            waive_own,
        })
    }

    fn telemetry(&self, raw: raw::Telemetry) -> Result<Telemetry, ConfigError> {
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(raw.log.as_ref()) {
            let message = format!(
                "{error}; allowed are a level (error, warn, info, debug, trace) or target=level, separated by commas"
            );
            return Err(self.error(raw.log.span(), "telemetry.log", message));
        }
        Ok(Telemetry { log: raw.log.into_inner(), format: raw.format, server_timing: raw.server_timing })
    }

    fn wall(&self, name: &toml::Spanned<String>) -> Result<Wall, ConfigError> {
        Wall::by_name(name.as_ref()).filter(|wall| wall.waivable()).ok_or_else(|| {
            let of_workers = Wall::ALL.iter().filter(|wall| wall.waivable()).map(|wall| wall.name());
            let allowed: Vec<_> =
                of_workers.chain(SupervisorWall::ALL.iter().map(|wall| wall.name())).collect();
            let message = format!("{:?} can't be waived, allowed are {}", name.as_ref(), allowed.join(", "));
            self.error(name.span(), "sandbox.waive", message)
        })
    }

    fn route(&self, index: usize, span: Range<usize>, raw: raw::Route) -> Result<Route, ConfigError> {
        let key = |name: &str| format!("route[{index}].{name}");
        let target = match (raw.dispatch, raw.worker, raw.namespace) {
            (Some(dispatch), None, None) => RouteTarget::Dispatch(dispatch.into_inner()),
            (None, Some(worker), Some(namespace)) => {
                let labelled = matches!(worker.as_ref(), NameTemplate::Label { .. });
                if labelled && !matches!(raw.host, HostPattern::Label { .. }) {
                    let message = "{1} needs a host with a wildcard, as \"*.example.com\"";
                    return Err(self.error(worker.span(), &key("worker"), message));
                }
                RouteTarget::Worker { namespace: namespace.into_inner(), worker: worker.into_inner() }
            }
            _ => {
                let message = "needs either dispatch, or worker and namespace";
                return Err(self.error(span, &format!("route[{index}]"), message));
            }
        };
        let mut headers = Vec::with_capacity(raw.headers.len());
        for (name, value) in raw.headers {
            let key = key(&format!("headers.{name}"));
            let field = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| self.error(value.span(), &key, format!("{name:?} is not a header name")))?;
            let text = HeaderValue::from_str(value.as_ref())
                .map_err(|_| self.error(value.span(), &key, "not a header value: visible ASCII only"))?;
            headers.push((field, text));
        }
        Ok(Route {
            host: raw.host,
            path: raw.path,
            headers,
            target,
            limits: raw.limits,
            rate_limit: raw.rate_limit,
        })
    }
}
