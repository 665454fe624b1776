//! The policy files as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::SeccompError;

/// Numbers by name.
pub(super) type Numbers = BTreeMap<String, u32>;

/// One policy file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Allowed whatever the arguments; name and why.
    #[serde(default)]
    pub(super) allow: BTreeMap<String, String>,
    /// Refused with an error; error name, then name and why.
    #[serde(default)]
    pub(super) refuse: BTreeMap<String, BTreeMap<String, String>>,
    /// Ends the process; name and why.
    #[serde(default)]
    pub(super) kill: BTreeMap<String, String>,
    /// Depends on the arguments.
    #[serde(default)]
    pub(super) rule: Vec<Rule>,
}

/// A call whose fate depends on its arguments: the first case that holds decides.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) syscall: String,
    pub(super) why: String,
    #[serde(default)]
    pub(super) cases: Vec<Case>,
    #[serde(rename = "else")]
    pub(super) otherwise: String,
}

/// Conditions that must all hold, and what happens then.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) when: Vec<Condition>,
    pub(super) then: String,
}

/// A condition on the low 32 bits of an argument (what the kernel itself looks at for an `int` or
/// for flags). Every test that is given must hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Condition {
    /// Which argument, from 0.
    pub(super) arg: u8,
    /// Only these bits of it are compared by `in`.
    pub(super) field: Option<Value>,
    /// It is one of these.
    #[serde(rename = "in")]
    pub(super) one_of: Option<Vec<Value>>,
    /// All of these bits are set.
    pub(super) all: Option<Vec<Value>>,
    /// None of these bits is set.
    pub(super) none: Option<Vec<Value>>,
}

/// A number, or the name of one in `constants.toml`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Value {
    Number(u32),
    Name(String),
}

/// Parses a file of the program.
pub(super) fn parse<T: serde::de::DeserializeOwned>(
    (file, text): (&'static str, &'static str),
) -> Result<T, SeccompError> {
    toml::from_str(text).map_err(|error| SeccompError::Parse { file, error: Box::new(error) })
}
