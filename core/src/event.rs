//! What happened outside, in the shape that the function will read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::function::FunctionId;
use crate::id::RequestId;
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
    /// A call of the API by a function.
    Function(FunctionCaller),
}

/// A function that calls another, by one of its invocations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionCaller {
    /// The function that calls.
    pub function: FunctionId,
    /// The invocation of it that calls.
    pub request_id: RequestId,
    /// How many calls by functions led to that invocation: 0 if it was started from outside.
    pub depth: u8,
}

/// An [`Origin`] as it is serialised: `{"kind":"direct"}`, `{"kind":"timer","trigger":"nightly"}`,
/// `{"kind":"function","caller":{…}}`.
#[derive(Serialize, Deserialize)]
struct OriginFields {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trigger: Option<TriggerName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    caller: Option<FunctionCaller>,
}

/// The kind of a direct call, beside the kinds of triggers.
const DIRECT: &str = "direct";
/// The kind of a call by a function.
const FUNCTION: &str = "function";

impl Origin {
    /// An event of a trigger.
    pub fn trigger_of(kind: TriggerKind, name: TriggerName) -> Self {
        Self::Trigger { kind, name }
    }

    /// From the parts that [`Self::kind`], [`Self::trigger`] and [`Self::caller`] return; `None` if
    /// they do not belong together, or the kind is unknown.
    pub fn from_parts(
        kind: &str,
        trigger: Option<TriggerName>,
        caller: Option<FunctionCaller>,
    ) -> Option<Self> {
        match (kind, trigger, caller) {
            (DIRECT, None, None) => Some(Self::Direct),
            (FUNCTION, None, Some(caller)) => Some(Self::Function(caller)),
            (DIRECT | FUNCTION, ..) | (_, None, _) | (_, _, Some(_)) => None,
            (kind, Some(name), None) => Some(Self::Trigger { kind: kind.parse().ok()?, name }),
        }
    }

    /// `direct`, `function`, or the trigger's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Direct => DIRECT,
            Self::Function(_) => FUNCTION,
            Self::Trigger { kind, .. } => kind.as_str(),
        }
    }

    /// Its number in the protocol of sandboxes, where a call by a function is a direct one.
    pub fn number(&self) -> u8 {
        match self {
            Self::Direct | Self::Function(_) => 0,
            Self::Trigger { kind, .. } => kind.profile().origin_number,
        }
    }

    /// The trigger, if the event came from one.
    pub fn trigger(&self) -> Option<&TriggerName> {
        match self {
            Self::Direct | Self::Function(_) => None,
            Self::Trigger { name, .. } => Some(name),
        }
    }

    /// The function that calls, if one does.
    pub fn caller(&self) -> Option<&FunctionCaller> {
        match self {
            Self::Function(caller) => Some(caller),
            Self::Direct | Self::Trigger { .. } => None,
        }
    }

    /// How many calls by functions led to this event: at most [`crate::CALL_DEPTH_MAX`].
    pub fn depth(&self) -> u8 {
        self.caller().map_or(0, |caller| caller.depth.saturating_add(1))
    }
}

impl From<Origin> for OriginFields {
    fn from(origin: Origin) -> Self {
        let kind = origin.kind().into();
        match origin {
            Origin::Direct => Self { kind, trigger: None, caller: None },
            Origin::Trigger { name, .. } => Self { kind, trigger: Some(name), caller: None },
            Origin::Function(caller) => Self { kind, trigger: None, caller: Some(caller) },
        }
    }
}

impl TryFrom<OriginFields> for Origin {
    type Error = String;

    fn try_from(fields: OriginFields) -> Result<Self, String> {
        let OriginFields { kind, trigger, caller } = fields;
        Self::from_parts(&kind, trigger, caller)
            .ok_or_else(|| format!("`{kind}` is no origin of an event"))
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

    #[test]
    fn a_call_by_a_function_survives_json_and_is_one_deeper_than_its_caller() {
        let function =
            FunctionId { namespace: "default".parse().unwrap(), name: "caller".parse().unwrap() };
        let caller = FunctionCaller { function, request_id: RequestId::new(), depth: 2 };
        let origin = Origin::Function(caller);
        let text = serde_json::to_string(&origin).unwrap();
        assert_eq!(serde_json::from_str::<Origin>(&text).unwrap(), origin, "{text}");
        assert_eq!((origin.depth(), origin.number(), origin.trigger()), (3, 0, None));
        assert!(serde_json::from_str::<Origin>(r#"{"kind":"function"}"#).is_err());
    }
}
