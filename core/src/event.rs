//! What happened outside, in the shape that the function will read.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::name::TriggerName;

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

/// Where an event came from. Serialised in queues and records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "trigger")]
pub enum Origin {
    /// A call of the API.
    #[default]
    Direct,
    /// A timer's tick, or its `fire`.
    Timer(TriggerName),
    /// A request to an HTTP trigger.
    Http(TriggerName),
    /// A batch of a user's Redis stream.
    Redis(TriggerName),
}

impl Origin {
    /// `direct`, `timer`, `http` or `redis`; SCF's `TRIGGER_SRC` for triggers.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Timer(_) => "timer",
            Self::Http(_) => "http",
            Self::Redis(_) => "redis",
        }
    }

    /// The trigger, if one stood behind it.
    pub fn trigger(&self) -> Option<&TriggerName> {
        match self {
            Self::Direct => None,
            Self::Timer(name) | Self::Http(name) | Self::Redis(name) => Some(name),
        }
    }
}
