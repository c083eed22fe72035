//! The cases as they are written in `runtimes/conformance/cases.json`. An unknown word is an error,
//! so that nothing is expected that nobody checks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::world::root;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Suite {
    version: u32,
    pub(super) languages: BTreeMap<String, Language>,
    pub(super) defaults: Defaults,
    pub(super) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Language {
    pub(super) folder: String,
    pub(super) runtime: String,
    pub(super) handler: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Defaults {
    pub(super) memory_mb: u32,
    pub(super) timeout_s: u32,
    pub(super) env: BTreeMap<String, String>,
    pub(super) next: Next,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Case {
    pub(super) name: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(default)]
    pub(super) event: Value,
    pub(super) languages: Vec<String>,
    #[serde(default)]
    pub(super) backends: Vec<String>,
    expect: Value,
    #[serde(default)]
    pub(super) special: Special,
    pub(super) memory_mb: Option<u32>,
    pub(super) timeout_s: Option<u32>,
    pub(super) network: Option<bool>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) within_ms: Option<u64>,
    pub(super) next: Option<Next>,
    #[serde(default)]
    pub(super) then: Vec<Then>,
    #[serde(default)]
    pub(super) neighbour_answers: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Special {
    pub(super) raw_event: Option<String>,
    pub(super) event_text_bytes: Option<usize>,
    pub(super) r#async: bool,
    pub(super) handler: Option<String>,
    pub(super) cold: bool,
    pub(super) as_root: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Then {
    pub(super) event: Value,
    pub(super) expect: Expect,
}

/// The call after the case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Next {
    Works,
    Fresh,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Status {
    Succeeded,
    Failed,
    Refused,
    FailedOrRefusedAtDeploy,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Expect {
    pub(super) status: Status,
    pub(super) http_status: Option<u16>,
    pub(super) code: Option<String>,
    /// `Some(Null)` where `null` is expected.
    #[serde(default, deserialize_with = "present")]
    pub(super) result: Option<Value>,
    pub(super) result_trimmed: Option<String>,
    #[serde(default)]
    pub(super) result_contains: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) result_not: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) result_at_least: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) result_keys: Vec<String>,
    pub(super) result_text_bytes: Option<usize>,
    pub(super) raw_result_any_blanks: Option<String>,
    pub(super) status_code: Option<i64>,
    pub(super) message: Option<String>,
    pub(super) error_type: Option<String>,
    #[serde(default)]
    pub(super) stack: Vec<String>,
    #[serde(default)]
    pub(super) stack_not: Vec<String>,
    #[serde(default)]
    pub(super) logs: Vec<String>,
    #[serde(default)]
    pub(super) logs_not: Vec<String>,
    #[serde(default)]
    pub(super) logs_in_order: Vec<String>,
    #[serde(default)]
    pub(super) log_cut: bool,
    pub(super) shown_as_late: Option<String>,
    #[serde(default)]
    pub(super) no_processes_left: bool,
    pub(super) server_growth_mb_max: Option<u64>,
}

fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl Suite {
    pub(super) fn load() -> Self {
        let path = root().join("runtimes/conformance/cases.json");
        let suite: Self = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(suite.version, 1);
        for case in &suite.cases {
            for language in &case.languages {
                assert!(suite.languages.contains_key(language), "{}: {language}", case.name);
                let _ = suite.expect(case, language);
            }
        }
        suite
    }

    /// What is expected of the case in this language.
    pub(super) fn expect(&self, case: &Case, language: &str) -> Expect {
        let by_language =
            case.expect.as_object().unwrap().keys().all(|key| self.languages.contains_key(key));
        let wanted = if by_language { &case.expect[language] } else { &case.expect };
        serde_json::from_value(wanted.clone())
            .unwrap_or_else(|error| panic!("{} in {language}: {error}", case.name))
    }
}

impl Case {
    /// Whether it is one of this backend's, here.
    pub(super) fn is_of(&self, backend: &str) -> bool {
        let named = self.backends.is_empty() || self.backends.iter().any(|name| name == backend);
        named && (!self.special.as_root || super::machine::is_root())
    }
}

impl Expect {
    /// Whether the event's log has to be read.
    pub(super) fn needs_log(&self) -> bool {
        !self.logs.is_empty()
            || !self.logs_not.is_empty()
            || !self.logs_in_order.is_empty()
            || self.log_cut
            || self.no_processes_left
    }
}
