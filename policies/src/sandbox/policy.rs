//! The validated policy and its verdicts.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use toml::Spanned;

use super::error::{Refused, SandboxPolicyError};
use super::raw;

/// A wall that may be lowered for one Worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Waiver {
    /// It may fork (never exec).
    Processes,
    /// It may make memory executable.
    Jit,
    /// It gets a `/proc` of its own pid namespace.
    Proc,
}

impl fmt::Display for Waiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processes => "processes",
            Self::Jit => "jit",
            Self::Proc => "proc",
        })
    }
}

/// Which Worker asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// Its dispatch namespace; `None` for a Worker of the account itself.
    pub namespace: Option<&'a str>,
    /// Its name.
    pub worker: &'a str,
}

/// What an upload asks for; `None` takes the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// Memory, bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Percent of one core.
    pub cpu_percent: Option<u32>,
    /// Size of `/tmp`, bytes.
    pub tmp_bytes: Option<u64>,
    /// Processes of the Worker; default 1.
    pub instances: Option<u32>,
    /// Invocations a process has at a time; `None` takes the ceiling.
    pub concurrency: Option<u32>,
}

/// What a Worker gets, or the most it may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// Memory, bytes; at least 1 MiB.
    pub memory_bytes: u64,
    /// Processes and threads; at least 1.
    pub pids: u32,
    /// Percent of one core; at least 1.
    pub cpu_percent: u32,
    /// Size of `/tmp`, bytes; at least one page.
    pub tmp_bytes: u64,
    /// Processes of the Worker; at least 1.
    pub instances: u32,
    /// Invocations a process has at a time; at least 1.
    pub concurrency: u32,
}

/// Under these a process can't start.
const LEAST: Resources = Resources {
    memory_bytes: 1 << 20,
    pids: 1,
    cpu_percent: 1,
    tmp_bytes: 4096,
    instances: 1,
    concurrency: 1,
};

/// The operator's sandbox policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxPolicy {
    default: Resources,
    ceiling: Resources,
    grants: Vec<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    scope: Scope,
    /// Names, or beginnings of names; `None` for every Worker.
    workers: Option<Vec<NamePattern>>,
    allow: BTreeSet<Waiver>,
    ceiling: Resources,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Namespaces,
    Namespace(String),
    Account,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum NamePattern {
    Exactly(String),
    Beginning(String),
}

const SHIPPED: &str = include_str!("../../sandbox/default.toml");

impl SandboxPolicy {
    /// The policy that comes with the program.
    pub fn shipped() -> Result<Self, SandboxPolicyError> {
        Self::parse(Path::new("sandbox/default.toml (shipped)"), SHIPPED)
    }

    /// Reads and checks a file. The whole of it is refused for one mistake.
    pub fn load(path: &Path) -> Result<Self, SandboxPolicyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SandboxPolicyError::Read { path: path.to_owned(), error })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a file; `path` is for errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SandboxPolicyError> {
        let parsed = toml::Deserializer::parse(text)
            .map_err(|error| SandboxPolicyError::at(path, text, error.span(), "", error.message()))?;
        let file: raw::File = serde_path_to_error::deserialize(parsed).map_err(|error| {
            // Spanned values have a layer of their own in the path.
            let key = error.path().to_string();
            let key = key.split('.').filter(|part| !part.is_empty() && !part.starts_with('$'));
            let key = key.collect::<Vec<_>>().join(".");
            SandboxPolicyError::at(path, text, error.inner().span(), key, error.inner().message())
        })?;
        Validator { path, text }.policy(file)
    }

    /// Decides what a Worker gets.
    pub fn resources(&self, who: Who<'_>, asked: &Asked) -> Result<Resources, Refused> {
        let most = self.ceiling(who);
        let wide = |key, asked: Option<u64>, default: u64, least: u64, most: u64| match asked {
            None => Ok(default.min(most)),
            Some(0) => Err(Refused::Nothing { key, least }),
            Some(asked) if asked < least => Err(Refused::Nothing { key, least }),
            Some(asked) if asked > most => Err(Refused::OverCeiling { key, asked, most }),
            Some(asked) => Ok(asked),
        };
        let narrow = |key, asked: Option<u32>, default: u32, most: u32| match asked {
            None => Ok(default.min(most)),
            Some(0) => Err(Refused::Nothing { key, least: 1 }),
            Some(asked) if asked > most => {
                Err(Refused::OverCeiling { key, asked: asked.into(), most: most.into() })
            }
            Some(asked) => Ok(asked),
        };
        let default = &self.default;
        Ok(Resources {
            memory_bytes: wide(
                "resources.memory_bytes",
                asked.memory_bytes,
                default.memory_bytes,
                LEAST.memory_bytes,
                most.memory_bytes,
            )?,
            pids: narrow("resources.pids", asked.pids, default.pids, most.pids)?,
            cpu_percent: narrow(
                "resources.cpu_percent",
                asked.cpu_percent,
                default.cpu_percent,
                most.cpu_percent,
            )?,
            tmp_bytes: wide(
                "resources.tmp_bytes",
                asked.tmp_bytes,
                default.tmp_bytes,
                LEAST.tmp_bytes,
                most.tmp_bytes,
            )?,
            instances: narrow("instances", asked.instances, 1, most.instances)?,
            concurrency: narrow("concurrency", asked.concurrency, most.concurrency, most.concurrency)?,
        })
    }

    /// Decides whether a wall may be lowered for a Worker.
    pub fn permits(&self, who: Who<'_>, waiver: Waiver) -> Result<(), Refused> {
        let granted: BTreeSet<Waiver> = self.grants_of(who).flat_map(|g| g.allow.iter().copied()).collect();
        if granted.contains(&waiver) {
            return Ok(());
        }
        let mut names: Vec<String> = granted.iter().map(Waiver::to_string).collect();
        if names.is_empty() {
            names.push("nothing".to_owned());
        }
        Err(Refused::NotGranted { waiver, granted: names.join(", ") })
    }

    /// The most a Worker may ask for: the highest of the plan's ceiling and its grants'.
    #[must_use]
    pub fn ceiling(&self, who: Who<'_>) -> Resources {
        self.grants_of(who).fold(self.ceiling, |most, grant| Resources {
            memory_bytes: most.memory_bytes.max(grant.ceiling.memory_bytes),
            pids: most.pids.max(grant.ceiling.pids),
            cpu_percent: most.cpu_percent.max(grant.ceiling.cpu_percent),
            tmp_bytes: most.tmp_bytes.max(grant.ceiling.tmp_bytes),
            instances: most.instances.max(grant.ceiling.instances),
            concurrency: most.concurrency.max(grant.ceiling.concurrency),
        })
    }

    fn grants_of<'a>(&'a self, who: Who<'a>) -> impl Iterator<Item = &'a Grant> {
        self.grants.iter().filter(move |grant| grant.covers(who))
    }
}

impl Grant {
    fn covers(&self, who: Who<'_>) -> bool {
        let scope = match &self.scope {
            Scope::Namespaces => who.namespace.is_some(),
            Scope::Namespace(name) => who.namespace == Some(name.as_str()),
            Scope::Account => who.namespace.is_none(),
        };
        scope
            && self.workers.as_ref().is_none_or(|patterns| {
                patterns.iter().any(|pattern| match pattern {
                    NamePattern::Exactly(name) => name == who.worker,
                    NamePattern::Beginning(start) => who.worker.starts_with(start.as_str()),
                })
            })
    }
}

struct Validator<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Validator<'_> {
    fn error<T>(&self, at: &Spanned<T>, key: &str, message: impl Into<String>) -> SandboxPolicyError {
        SandboxPolicyError::at(self.path, self.text, Some(at.span()), key, message)
    }

    fn policy(&self, file: raw::File) -> Result<SandboxPolicy, SandboxPolicyError> {
        if *file.version.as_ref() != 1 {
            let message = format!("{} is not known, allowed is 1", file.version.as_ref());
            return Err(self.error(&file.version, "version", message));
        }
        let raw = &file.ceiling;
        let ceiling = Resources {
            memory_bytes: raw.memory_bytes.as_ref().0,
            pids: *raw.pids.as_ref(),
            cpu_percent: *raw.cpu_percent.as_ref(),
            tmp_bytes: raw.tmp_bytes.as_ref().0,
            instances: *raw.instances.as_ref(),
            concurrency: *raw.concurrency.as_ref(),
        };
        let raw = file.default.as_ref();
        let default = Resources {
            memory_bytes: raw.memory_bytes.as_ref().0,
            pids: *raw.pids.as_ref(),
            cpu_percent: *raw.cpu_percent.as_ref(),
            tmp_bytes: raw.tmp_bytes.as_ref().0,
            instances: 1,
            concurrency: ceiling.concurrency,
        };
        let (from, top) = (file.default.as_ref(), &file.ceiling);
        for (key, span, value, least) in [
            ("default.memory_bytes", from.memory_bytes.span(), default.memory_bytes, LEAST.memory_bytes),
            ("default.pids", from.pids.span(), default.pids.into(), 1),
            ("default.cpu_percent", from.cpu_percent.span(), default.cpu_percent.into(), 1),
            ("default.tmp_bytes", from.tmp_bytes.span(), default.tmp_bytes, LEAST.tmp_bytes),
            ("ceiling.memory_bytes", top.memory_bytes.span(), ceiling.memory_bytes, default.memory_bytes),
            ("ceiling.pids", top.pids.span(), ceiling.pids.into(), default.pids.into()),
            (
                "ceiling.cpu_percent",
                top.cpu_percent.span(),
                ceiling.cpu_percent.into(),
                default.cpu_percent.into(),
            ),
            ("ceiling.tmp_bytes", top.tmp_bytes.span(), ceiling.tmp_bytes, default.tmp_bytes),
            ("ceiling.instances", top.instances.span(), ceiling.instances.into(), 1),
            ("ceiling.concurrency", top.concurrency.span(), ceiling.concurrency.into(), 1),
        ] {
            if value < least {
                let message = format!("{value} is not allowed, the least is {least}");
                return Err(SandboxPolicyError::at(self.path, self.text, Some(span), key, message));
            }
        }
        let grants = file.grant.into_iter().enumerate();
        let grants =
            grants.map(|(index, grant)| self.grant(index, grant, &ceiling)).collect::<Result<Vec<_>, _>>()?;
        Ok(SandboxPolicy { default, ceiling, grants })
    }

    fn grant(&self, index: usize, raw: raw::Grant, plan: &Resources) -> Result<Grant, SandboxPolicyError> {
        let scope = match (raw.account, raw.namespace) {
            (None, None) => Scope::Namespaces,
            (None, Some(namespace)) => Scope::Namespace(namespace.into_inner()),
            (Some(account), None) if *account.as_ref() => Scope::Account,
            (Some(account), _) => {
                let message = "allowed is account = true, without namespace";
                return Err(self.error(&account, &format!("grant[{index}].account"), message));
            }
        };
        let workers = raw.workers.map(|patterns| {
            patterns.iter().map(|pattern| self.pattern(index, pattern)).collect::<Result<Vec<_>, _>>()
        });
        Ok(Grant {
            scope,
            workers: workers.transpose()?,
            allow: raw.allow.into_iter().collect(),
            ceiling: Resources {
                memory_bytes: raw.ceiling.memory_bytes.map_or(plan.memory_bytes, |size| size.0),
                pids: raw.ceiling.pids.unwrap_or(plan.pids),
                cpu_percent: raw.ceiling.cpu_percent.unwrap_or(plan.cpu_percent),
                tmp_bytes: raw.ceiling.tmp_bytes.map_or(plan.tmp_bytes, |size| size.0),
                instances: raw.ceiling.instances.unwrap_or(plan.instances),
                concurrency: raw.ceiling.concurrency.unwrap_or(plan.concurrency),
            },
        })
    }

    fn pattern(&self, index: usize, text: &Spanned<String>) -> Result<NamePattern, SandboxPolicyError> {
        let (name, beginning) = match text.as_ref().strip_suffix('*') {
            Some(start) => (start, true),
            None => (text.as_ref().as_str(), false),
        };
        if name.contains('*') || (name.is_empty() && !beginning) {
            let message = format!("{:?} is not a name, or the beginning of one followed by *", text.as_ref());
            return Err(self.error(text, &format!("grant[{index}].workers"), message));
        }
        Ok(if beginning {
            NamePattern::Beginning(name.to_owned())
        } else {
            NamePattern::Exactly(name.to_owned())
        })
    }
}
