//! The file as it is written: names and types only.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hanshu_core::{HttpAuth, Namespace};
use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) namespace: Option<Namespace>,
    #[serde(default)]
    pub(super) functions: BTreeMap<String, Function>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
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
    pub(super) asynchronous: Option<Async>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) triggers: Vec<Trigger>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Async {
    pub(super) max_attempts: Option<u32>,
    pub(super) retry_delay_s: Option<u32>,
    pub(super) max_age_s: Option<u32>,
    pub(super) max_waiting: Option<u32>,
}

/// Flat, so that every error has a line: which fields a type has is checked afterwards.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trigger {
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) name: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) cron: Option<Spanned<String>>,
    pub(super) timezone: Option<Spanned<String>>,
    pub(super) argument: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) methods: Option<Spanned<Vec<String>>>,
    pub(super) auth: Option<Spanned<HttpAuth>>,
    pub(super) url: Option<Spanned<String>>,
    pub(super) stream: Option<Spanned<String>>,
    pub(super) batch: Option<Spanned<u32>>,
}

fn here() -> PathBuf {
    ".".into()
}
