//! What happened outside, in the shape that the function will read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::name::TriggerName;
use crate::trigger::TriggerKind;

/// An event on its way to a function. The payload is JSON text, checked where it came in and
/// passed on byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it came from.
    pub origin: Origin,
    /// JSON text, at most [`crate::PAYLOAD_BYTES_MAX`] bytes
    /// ([`crate::ASYNC_PAYLOAD_BYTES_MAX`] where it is queued).
    pub payload: Bytes,
}

/// Where an event came from. Serialised between nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "OriginFields", into = "OriginFields")]
pub enum Origin {
    /// A call of the API.
    #[default]
    Direct,
    /// A trigger: a timer's tick, a request, a batch of a stream.
    Trigger {
        /// The trigger's kind.
        kind: TriggerKind,
        /// The trigger's name within the function.
        name: TriggerName,
    },
}

/// An [`Origin`] as it is serialised: `{"kind":"direct"}`, `{"kind":"timer","trigger":"nightly"}`.
#[derive(Serialize, Deserialize)]
struct OriginFields {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trigger: Option<TriggerName>,
}

/// The kind of a direct call, beside the kinds of triggers.
const DIRECT: &str = "direct";

impl Origin {
    /// An event of a trigger.
    pub fn trigger_of(kind: TriggerKind, name: TriggerName) -> Self {
        Self::Trigger { kind, name }
    }

    /// From the words of [`Self::kind`] and [`Self::trigger`]; `None` if they are no origin.
    pub fn from_words(kind: &str, trigger: Option<TriggerName>) -> Option<Self> {
        match (kind, trigger) {
            (DIRECT, None) => Some(Self::Direct),
            (DIRECT, Some(_)) | (_, None) => None,
            (kind, Some(name)) => Some(Self::Trigger { kind: kind.parse().ok()?, name }),
        }
    }

    /// `direct`, or the trigger's kind; SCF's `TRIGGER_SRC` for triggers.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Direct => DIRECT,
            Self::Trigger { kind, .. } => kind.as_str(),
        }
    }

    /// Its number in the protocol of sandboxes.
    pub fn number(&self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::Trigger { kind, .. } => kind.profile().origin_number,
        }
    }

    /// The trigger, if the event came from one.
    pub fn trigger(&self) -> Option<&TriggerName> {
        match self {
            Self::Direct => None,
            Self::Trigger { name, .. } => Some(name),
        }
    }
}

impl From<Origin> for OriginFields {
    fn from(origin: Origin) -> Self {
        Self { kind: origin.kind().into(), trigger: origin.trigger().cloned() }
    }
}

impl TryFrom<OriginFields> for Origin {
    type Error = String;

    fn try_from(fields: OriginFields) -> Result<Self, String> {
        let OriginFields { kind, trigger } = fields;
        Self::from_words(&kind, trigger).ok_or_else(|| format!("`{kind}` is no origin of an event"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trigger::TriggerKind;

    #[test]
    fn every_origin_survives_json_and_has_a_number_of_its_own() {
        let name: TriggerName = "nightly".parse().unwrap();
        let triggers = TriggerKind::all().map(|kind| Origin::trigger_of(kind, name.clone()));
        let all: Vec<_> = std::iter::once(Origin::Direct).chain(triggers).collect();
        for (number, origin) in (0u8..).zip(&all) {
            let text = serde_json::to_string(origin).unwrap();
            assert_eq!(&serde_json::from_str::<Origin>(&text).unwrap(), origin, "{text}");
            assert_eq!(origin.number(), number);
        }
        assert_eq!(serde_json::to_string(&all[0]).unwrap(), r#"{"kind":"direct"}"#);
        let timer = r#"{"kind":"timer","trigger":"nightly"}"#;
        assert_eq!(serde_json::to_string(&all[1]).unwrap(), timer);
        for bad in [r#"{"kind":"timer"}"#, r#"{"kind":"other","trigger":"a"}"#, "{}"] {
            assert!(serde_json::from_str::<Origin>(bad).is_err(), "{bad}");
        }
    }
}
