//! The file as written.

use serde::Deserialize;
use toml::Spanned;

use super::policy::Waiver;
use super::size::Size;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) version: Spanned<u32>,
    pub(super) default: Spanned<Default>,
    pub(super) ceiling: Ceiling,
    #[serde(default)]
    pub(super) grant: Vec<Grant>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Default {
    pub(super) memory_bytes: Spanned<Size>,
    pub(super) pids: Spanned<u32>,
    pub(super) cpu_percent: Spanned<u32>,
    pub(super) tmp_bytes: Spanned<Size>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ceiling {
    pub(super) memory_bytes: Spanned<Size>,
    pub(super) pids: Spanned<u32>,
    pub(super) cpu_percent: Spanned<u32>,
    pub(super) tmp_bytes: Spanned<Size>,
    pub(super) instances: Spanned<u32>,
    pub(super) concurrency: Spanned<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantCeiling {
    pub(super) memory_bytes: Option<Size>,
    pub(super) pids: Option<u32>,
    pub(super) cpu_percent: Option<u32>,
    pub(super) tmp_bytes: Option<Size>,
    pub(super) instances: Option<u32>,
    pub(super) concurrency: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) account: Option<Spanned<bool>>,
    pub(super) namespace: Option<Spanned<String>>,
    pub(super) workers: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) allow: Vec<Waiver>,
    #[serde(default)]
    pub(super) ceiling: GrantCeiling,
}
