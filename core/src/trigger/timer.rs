//! Timers: an event at each tick of a schedule.

use serde::{Deserialize, Serialize};

use super::field::{FieldValue, TriggerField};
use super::kind::{TriggerConfig, TriggerKind, TriggerProfile, decode_config};

/// A timer's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerTrigger {
    /// Cron text of 5, 6 or 7 fields, as the user wrote it.
    pub cron: String,
    /// IANA zone; `None` is the server's `--timezone`.
    #[serde(default)]
    pub timezone: Option<String>,
    /// `event.Message`, at most [`crate::TIMER_ARGUMENT_BYTES_MAX`] bytes.
    #[serde(default)]
    pub argument: String,
}

impl TriggerConfig for TimerTrigger {
    const KIND: TriggerKind = TriggerKind::of(&PROFILE);
}

static PROFILE: TriggerProfile = TriggerProfile {
    name: "timer",
    origin_number: 1,
    is_stream: false,
    description: "Queues an event at each tick.",
    fields: &[
        TriggerField {
            name: "cron",
            value: FieldValue::Text,
            required: true,
            description: "7 fields as SCF, 5-field crontab lines, or 6 fields (seconds first).",
        },
        TriggerField {
            name: "timezone",
            value: FieldValue::Text,
            required: false,
            description: "IANA zone; the server's if absent.",
        },
        TriggerField {
            name: "argument",
            value: FieldValue::Text,
            required: false,
            description: "`event.Message`: at most 4 KB; empty if absent.",
        },
    ],
    decode: decode_config::<TimerTrigger>,
};
