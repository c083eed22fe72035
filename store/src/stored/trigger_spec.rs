//! What a trigger does, a JSON column of the table `triggers`.

use hanshu_core::{TriggerKind, TriggerSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::version::FormatVersion;

/// A [`TriggerSpec`] as it is stored. The form of a kind's settings is in the kind's file in core,
/// where a test holds it; here the texts of every format are read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredTriggerSpec {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    #[serde(rename = "type")]
    kind: TriggerKind,
    #[serde(flatten)]
    settings: Map<String, Value>,
}

impl TryFrom<&TriggerSpec> for StoredTriggerSpec {
    type Error = serde_json::Error;

    fn try_from(spec: &TriggerSpec) -> serde_json::Result<Self> {
        let (kind, settings) = (spec.kind(), spec.to_fields()?);
        Ok(Self { format: FormatVersion::newest(), kind, settings })
    }
}

impl TryFrom<StoredTriggerSpec> for TriggerSpec {
    type Error = serde_json::Error;

    fn try_from(stored: StoredTriggerSpec) -> serde_json::Result<Self> {
        stored.kind.decode(stored.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_is_read_and_written() {
        for text in [
            r#"{"type":"timer","cron":"*/5 * * * * * *","timezone":null,"argument":"x"}"#,
            r#"{"type":"timer","cron":"0 0 * * *","timezone":"Asia/Shanghai","argument":""}"#,
            r#"{"type":"http","path":"/hello/{name}","methods":["GET"],"auth":"key","key":"k"}"#,
            r#"{"type":"http","path":"/x","methods":[],"auth":"none","key":null}"#,
            r#"{"type":"redis","url":"redis://:secret@host/0","stream":"orders","batch":10}"#,
        ] {
            let stored: StoredTriggerSpec = serde_json::from_str(text).unwrap();
            let spec = TriggerSpec::try_from(stored).unwrap();
            let written = serde_json::to_value(StoredTriggerSpec::try_from(&spec).unwrap());
            assert_eq!(written.unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_newer_format_and_an_unknown_kind_are_refused() {
        for text in [
            r#"{"format":2,"type":"timer","cron":"","timezone":null,"argument":""}"#,
            r#"{"type":"carrier_pigeon","cron":""}"#,
        ] {
            assert!(serde_json::from_str::<StoredTriggerSpec>(text).is_err(), "{text}");
        }
    }
}
