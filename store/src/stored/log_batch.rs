//! A batch of a function's output, an entry of the journal.

use std::borrow::Cow;

use hanshu_core::{FunctionId, LogBatch, Qualifier, RequestId, Timestamp};
use serde::{Deserialize, Serialize};

use super::cold_start::StoredColdStart;
use super::version::FormatVersion;

/// A [`LogBatch`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredLogBatch<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    request_id: Option<RequestId>,
    function: Cow<'a, FunctionId>,
    version: Qualifier,
    time: Timestamp,
    lines: Cow<'a, [String]>,
    first: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cold_start: Option<StoredColdStart>,
}

impl<'a> From<&'a LogBatch> for StoredLogBatch<'a> {
    fn from(batch: &'a LogBatch) -> Self {
        let LogBatch { request_id, function, version, time, lines, first, cold_start } = batch;
        Self {
            format: FormatVersion::newest(),
            request_id: *request_id,
            function: Cow::Borrowed(function),
            version: *version,
            time: *time,
            lines: lines.into(),
            first: *first,
            cold_start: cold_start.map(StoredColdStart::from),
        }
    }
}

impl From<StoredLogBatch<'_>> for LogBatch {
    fn from(stored: StoredLogBatch<'_>) -> Self {
        Self {
            request_id: stored.request_id,
            function: stored.function.into_owned(),
            version: stored.version,
            time: stored.time,
            lines: stored.lines.into_owned(),
            first: stored.first,
            cold_start: stored.cold_start.map(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_is_read_and_written() {
        let text = r#"{"request_id":null,"function":{"namespace":"default","name":"hello"},"version":"3","time":"2026-11-26T12:00:00Z","lines":["one","two"],"first":false}"#;
        let stored: StoredLogBatch<'_> = serde_json::from_str(text).unwrap();
        let batch = LogBatch::from(stored);
        assert_eq!(batch.lines, ["one", "two"]);
        assert_eq!(serde_json::to_string(&StoredLogBatch::from(&batch)).unwrap(), text);
    }
}
