//! A failure: JSON in the state of an event and in the record of an attempt.

use std::borrow::Cow;

use hanshu_core::{Failure, StatusCode};
use serde::{Deserialize, Serialize};

use super::version::FormatVersion;

/// A [`Failure`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredFailure<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    status_code: StatusCode,
    error_code: i32,
    error_message: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error_type: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stack_trace: Option<Cow<'a, str>>,
}

/// A failure as JSON.
pub(crate) fn failure_json(failure: &Failure) -> serde_json::Result<String> {
    serde_json::to_string(&StoredFailure::from(failure))
}

impl<'a> From<&'a Failure> for StoredFailure<'a> {
    fn from(failure: &'a Failure) -> Self {
        let Failure { status_code, error_code, error_message, error_type, stack_trace } = failure;
        Self {
            format: FormatVersion::newest(),
            status_code: *status_code,
            error_code: *error_code,
            error_message: error_message.into(),
            error_type: error_type.as_ref().map(Cow::from),
            stack_trace: stack_trace.as_ref().map(Cow::from),
        }
    }
}

impl From<StoredFailure<'_>> for Failure {
    fn from(stored: StoredFailure<'_>) -> Self {
        Self {
            status_code: stored.status_code,
            error_code: stored.error_code,
            error_message: stored.error_message.into_owned(),
            error_type: stored.error_type.map(Cow::into_owned),
            stack_trace: stored.stack_trace.map(Cow::into_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_is_read_and_written() {
        for text in [
            r#"{"statusCode":433,"errorCode":-1,"errorMessage":"timed out after 3 s"}"#,
            r#"{"statusCode":430,"errorCode":1,"errorMessage":"no","errorType":"KeyError","stackTrace":"a\nb"}"#,
        ] {
            let stored: StoredFailure<'_> = serde_json::from_str(text).unwrap();
            let failure = Failure::from(stored);
            assert_eq!(serde_json::to_string(&StoredFailure::from(&failure)).unwrap(), text);
        }
    }
}
