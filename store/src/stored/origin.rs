//! Where an event came from, a JSON column of the table `queue_events` and a field of its hash in
//! Redis.

use std::borrow::Cow;

use hanshu_core::ports::QueueError;
use hanshu_core::{Origin, TriggerName};
use serde::{Deserialize, Serialize};

use super::unreadable::unreadable;
use super::version::FormatVersion;

/// An [`Origin`] as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredOrigin<'a> {
    #[serde(default, skip_serializing_if = "FormatVersion::is_first")]
    format: FormatVersion<1>,
    kind: StoredOriginKind,
    /// Of every kind but `direct`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trigger: Option<Cow<'a, TriggerName>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredOriginKind {
    Direct,
    Timer,
    Http,
    Redis,
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

/// An origin without the name of its trigger.
#[derive(Debug, thiserror::Error)]
#[error("an event of a trigger does not name it")]
pub(crate) struct UnnamedTriggerError;

impl<'a> From<&'a Origin> for StoredOrigin<'a> {
    fn from(origin: &'a Origin) -> Self {
        let kind = match origin {
            Origin::Direct => StoredOriginKind::Direct,
            Origin::Timer(_) => StoredOriginKind::Timer,
            Origin::Http(_) => StoredOriginKind::Http,
            Origin::Redis(_) => StoredOriginKind::Redis,
        };
        let trigger = origin.trigger().map(Cow::Borrowed);
        Self { format: FormatVersion::newest(), kind, trigger }
    }
}

impl TryFrom<StoredOrigin<'_>> for Origin {
    type Error = UnnamedTriggerError;

    fn try_from(stored: StoredOrigin<'_>) -> Result<Self, UnnamedTriggerError> {
        let trigger = stored.trigger.map(Cow::into_owned).ok_or(UnnamedTriggerError);
        match stored.kind {
            StoredOriginKind::Direct => Ok(Self::Direct),
            StoredOriginKind::Timer => trigger.map(Self::Timer),
            StoredOriginKind::Http => trigger.map(Self::Http),
            StoredOriginKind::Redis => trigger.map(Self::Redis),
        }
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
        ] {
            let stored: StoredOrigin<'_> = serde_json::from_str(text).unwrap();
            let origin = Origin::try_from(stored).unwrap();
            assert_eq!(serde_json::to_string(&StoredOrigin::from(&origin)).unwrap(), text);
        }
    }

    #[test]
    fn a_triggers_event_without_its_trigger_is_refused() {
        let stored: StoredOrigin<'_> = serde_json::from_str(r#"{"kind":"timer"}"#).unwrap();
        assert!(Origin::try_from(stored).is_err());
    }
}
