//! The file as it is written: names and types only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hanshu_core::Namespace;
use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestFile {
    pub(super) namespace: Option<Namespace>,
    #[serde(default)]
    pub(super) functions: BTreeMap<String, FunctionTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FunctionTable {
    pub(super) runtime: String,
    pub(super) handler: String,
    #[serde(default = "here")]
    pub(super) code: PathBuf,
    pub(super) memory_mb: Option<u32>,
    pub(super) timeout_s: Option<u32>,
    pub(super) init_timeout_s: Option<u32>,
    pub(super) concurrency: Option<u32>,
    pub(super) network: Option<bool>,
    #[serde(rename = "async")]
    pub(super) asynchronous: Option<AsyncTable>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) triggers: Vec<TriggerTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AsyncTable {
    pub(super) max_attempts: Option<u32>,
    pub(super) retry_delay_s: Option<u32>,
    pub(super) max_age_s: Option<u32>,
    pub(super) max_waiting: Option<u32>,
}

/// A trigger's fields by name: which ones there may be follows from its `type`.
pub(super) type TriggerTable = Spanned<BTreeMap<String, Spanned<toml::Value>>>;

fn here() -> PathBuf {
    ".".into()
}
