//! Where an event came from, a JSON column of the table `queue_events` and a field of its hash in
//! Redis.

use std::borrow::Cow;

use hanshu_core::ports::QueueError;
use hanshu_core::{FunctionCaller, FunctionId, Origin, RequestId, TriggerName};
use serde::{Deserialize, Serialize};

use super::unreadable::unreadable;
use super::version::FormatVersion;

/// An [`Origin`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredOrigin<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    /// `direct`, `function`, or the trigger's kind.
    kind: Cow<'a, str>,
    /// Of every kind but `direct` and `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trigger: Option<Cow<'a, TriggerName>>,
    /// Of the kind `function`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<StoredFunctionCaller<'a>>,
}

/// A [`FunctionCaller`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredFunctionCaller<'a> {
    function: Cow<'a, FunctionId>,
    request_id: RequestId,
    depth: u8,
}

/// An origin as JSON.
pub(crate) fn origin_json(origin: &Origin) -> serde_json::Result<String> {
    serde_json::to_string(&StoredOrigin::from(origin))
}

/// The origin that JSON text says, for the event `id`.
pub(crate) fn read_origin(id: &str, text: &str) -> Result<Origin, QueueError> {
    let stored: StoredOrigin<'_> =
        serde_json::from_str(text).map_err(|error| unreadable(id, error))?;
    stored.try_into().map_err(|error| unreadable(id, error))
}

/// Words that are no origin.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no origin of an event, or does not name its trigger")]
pub(crate) struct UnknownOriginError(String);

impl<'a> From<&'a Origin> for StoredOrigin<'a> {
    fn from(origin: &'a Origin) -> Self {
        Self {
            format: FormatVersion::newest(),
            kind: origin.kind().into(),
            trigger: origin.trigger().map(Cow::Borrowed),
            caller: origin.caller().map(StoredFunctionCaller::from),
        }
    }
}

impl<'a> From<&'a FunctionCaller> for StoredFunctionCaller<'a> {
    fn from(caller: &'a FunctionCaller) -> Self {
        let FunctionCaller { function, request_id, depth } = caller;
        Self { function: Cow::Borrowed(function), request_id: *request_id, depth: *depth }
    }
}

impl From<StoredFunctionCaller<'_>> for FunctionCaller {
    fn from(stored: StoredFunctionCaller<'_>) -> Self {
        let StoredFunctionCaller { function, request_id, depth } = stored;
        Self { function: function.into_owned(), request_id, depth }
    }
}

impl TryFrom<StoredOrigin<'_>> for Origin {
    type Error = UnknownOriginError;

    fn try_from(stored: StoredOrigin<'_>) -> Result<Self, UnknownOriginError> {
        let trigger = stored.trigger.map(Cow::into_owned);
        Self::from_parts(&stored.kind, trigger, stored.caller.map(FunctionCaller::from))
            .ok_or_else(|| UnknownOriginError(stored.kind.into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_format_is_read_and_written() {
        for text in [
            r#"{"kind":"direct"}"#,
            r#"{"kind":"timer","trigger":"tick"}"#,
            r#"{"kind":"http","trigger":"http"}"#,
            r#"{"kind":"redis","trigger":"orders"}"#,
            r#"{"kind":"function","caller":{"function":{"namespace":"default","name":"one"},"request_id":"01890a5d-ac96-774b-bcce-b302099a8057","depth":2}}"#,
        ] {
            let stored: StoredOrigin<'_> = serde_json::from_str(text).unwrap();
            let origin = Origin::try_from(stored).unwrap();
            assert_eq!(serde_json::to_string(&StoredOrigin::from(&origin)).unwrap(), text);
        }
    }

    #[test]
    fn an_unknown_kind_and_an_unnamed_trigger_are_refused() {
        for text in [
            r#"{"kind":"timer"}"#,
            r#"{"kind":"function"}"#,
            r#"{"kind":"carrier_pigeon","trigger":"a"}"#,
        ] {
            let stored: StoredOrigin<'_> = serde_json::from_str(text).unwrap();
            assert!(Origin::try_from(stored).is_err(), "{text}");
        }
    }
}
