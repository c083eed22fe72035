//! Redis triggers: batches of entries of a user's stream.

use serde::{Deserialize, Serialize};

use super::field::{FieldValue, TriggerField};
use super::kind::{TriggerConfig, TriggerKind, TriggerProfile, decode_config};
use crate::secret::Secret;

/// A Redis trigger's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisTrigger {
    /// `redis://…`; may contain a password.
    pub url: Secret,
    /// The stream's key.
    pub stream: String,
    /// Entries per event, at most.
    #[serde(default = "batch_default")]
    pub batch: u32,
}

fn batch_default() -> u32 {
    10
}

impl TriggerConfig for RedisTrigger {
    const KIND: TriggerKind = TriggerKind::of(&PROFILE);
}

static PROFILE: TriggerProfile = TriggerProfile {
    name: "redis",
    origin_number: 3,
    is_stream: true,
    description: "Feeds batches of a user's Redis stream to the function.",
    fields: &[
        TriggerField {
            name: "url",
            value: FieldValue::Address,
            required: true,
            description: "`redis://…`; may contain a password.",
        },
        TriggerField {
            name: "stream",
            value: FieldValue::Text,
            required: true,
            description: "The stream's key.",
        },
        TriggerField {
            name: "batch",
            value: FieldValue::Number,
            required: false,
            description: "Entries per event, at most; 10 if absent.",
        },
    ],
    decode: decode_config::<RedisTrigger>,
};
