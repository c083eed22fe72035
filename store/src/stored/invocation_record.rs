//! The record of an attempt, an entry of the journal.

use std::borrow::Cow;
use std::time::Duration;

use hanshu_core::{
    FunctionId, InvocationRecord, NodeId, Qualifier, RequestId, StatusCode, Timestamp, TriggerName,
};
use serde::{Deserialize, Serialize};

use super::cold_start::StoredColdStart;
use super::failure::StoredFailure;
use super::origin::StoredFunctionCaller;
use super::version::FormatVersion;

/// An [`InvocationRecord`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredInvocationRecord<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    request_id: RequestId,
    function: Cow<'a, FunctionId>,
    version: Qualifier,
    trigger: Option<Cow<'a, TriggerName>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    called_by: Option<StoredFunctionCaller<'a>>,
    attempt: u32,
    started_at: Timestamp,
    duration: Duration,
    status: StatusCode,
    error: Option<StoredFailure<'a>>,
    cold: bool,
    init: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cold_start: Option<StoredColdStart>,
    memory_mb: u32,
    memory_bytes: u64,
    node: Option<Cow<'a, NodeId>>,
    first: bool,
}

impl<'a> From<&'a InvocationRecord> for StoredInvocationRecord<'a> {
    fn from(record: &'a InvocationRecord) -> Self {
        let InvocationRecord {
            request_id,
            function,
            version,
            trigger,
            called_by,
            attempt,
            started_at,
            duration,
            status,
            error,
            cold,
            init,
            cold_start,
            memory_mb,
            memory_bytes,
            node,
            first,
        } = record;
        Self {
            format: FormatVersion::newest(),
            request_id: *request_id,
            function: Cow::Borrowed(function),
            version: *version,
            trigger: trigger.as_ref().map(Cow::Borrowed),
            called_by: called_by.as_ref().map(StoredFunctionCaller::from),
            attempt: *attempt,
            started_at: *started_at,
            duration: *duration,
            status: *status,
            error: error.as_ref().map(StoredFailure::from),
            cold: *cold,
            init: *init,
            cold_start: cold_start.map(StoredColdStart::from),
            memory_mb: *memory_mb,
            memory_bytes: *memory_bytes,
            node: node.as_ref().map(Cow::Borrowed),
            first: *first,
        }
    }
}

impl From<StoredInvocationRecord<'_>> for InvocationRecord {
    fn from(stored: StoredInvocationRecord<'_>) -> Self {
        Self {
            request_id: stored.request_id,
            function: stored.function.into_owned(),
            version: stored.version,
            trigger: stored.trigger.map(Cow::into_owned),
            called_by: stored.called_by.map(Into::into),
            attempt: stored.attempt,
            started_at: stored.started_at,
            duration: stored.duration,
            status: stored.status,
            error: stored.error.map(Into::into),
            cold: stored.cold,
            init: stored.init,
            cold_start: stored.cold_start.map(Into::into),
            memory_mb: stored.memory_mb,
            memory_bytes: stored.memory_bytes,
            node: stored.node.map(Cow::into_owned),
            first: stored.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name that a prewarmed sandbox has in stored values is older than its name in memory.
    const WITH_STEM: &str = r#"{"request_id":"01890a5d-ac96-774b-bcce-b302099a8057","function":{"namespace":"default","name":"hello"},"version":"$LATEST","trigger":null,"attempt":1,"started_at":"2026-11-26T12:00:00Z","duration":{"secs":0,"nanos":1999000},"status":200,"error":null,"cold":true,"init":{"secs":0,"nanos":120000000},"cold_start":{"total":{"secs":0,"nanos":120000000},"parts":{"code":{"secs":0,"nanos":0},"runtime":{"secs":0,"nanos":80000000},"function":{"secs":0,"nanos":40000000}},"memory_mb":128,"memory_bytes":0,"from_stem":true},"memory_mb":128,"memory_bytes":31178752,"node":"n1","first":true}"#;

    fn read(text: &str) -> InvocationRecord {
        serde_json::from_str::<StoredInvocationRecord<'_>>(text).unwrap().into()
    }

    #[test]
    fn the_first_format_is_read_and_written() {
        let record = read(WITH_STEM);
        assert!(record.cold_start.unwrap().from_prewarmed);
        let written = serde_json::to_string(&StoredInvocationRecord::from(&record)).unwrap();
        assert_eq!(written, WITH_STEM);
        assert_eq!(read(&written), record);
        let renamed = written.replace("from_stem", "from_prewarmed");
        assert_eq!(read(&renamed), record, "written so for some commits");
    }

    #[test]
    fn what_the_oldest_records_lack_has_a_default() {
        let before_stems = WITH_STEM.replace(r#","from_stem":true"#, "");
        assert!(!read(&before_stems).cold_start.unwrap().from_prewarmed);
        let (start, rest) = WITH_STEM.split_once(r#""cold_start":"#).unwrap();
        let (_, end) = rest.split_once(r#""memory_mb":128,"memory_bytes":31178752"#).unwrap();
        let oldest = format!(r#"{start}"memory_mb":128,"memory_bytes":31178752{end}"#);
        assert_eq!(read(&oldest).cold_start, None);
    }
}
