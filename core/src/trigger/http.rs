//! HTTP triggers: a request becomes a synchronous call.

use serde::{Deserialize, Serialize};

use super::field::{FieldValue, TriggerField};
use super::kind::{TriggerConfig, TriggerKind, TriggerProfile, decode_config};
use crate::secret::Secret;

/// An HTTP trigger's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpTrigger {
    /// Such as `/hello/{name}`.
    pub path: String,
    /// Upper case; empty means any.
    #[serde(default)]
    pub methods: Vec<String>,
    /// Who may call.
    #[serde(default)]
    pub auth: HttpAuth,
    /// The key where `auth` requires one; made by the platform, survives deploys.
    #[serde(default)]
    pub key: Option<Secret>,
}

/// Who may call an HTTP trigger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpAuth {
    /// Any client, without a key.
    None,
    /// Clients that send the trigger's own key in `x-hanshu-key`.
    #[default]
    Key,
}

impl HttpTrigger {
    /// The same with the key that `make_key` returns, if `auth` requires one, and else with none.
    #[must_use]
    pub fn with_key(&self, make_key: impl FnOnce() -> Option<Secret>) -> Self {
        let key = match self.auth {
            HttpAuth::Key => make_key(),
            HttpAuth::None => None,
        };
        Self { key, ..self.clone() }
    }
}

impl TriggerConfig for HttpTrigger {
    const KIND: TriggerKind = TriggerKind::of(&PROFILE);
}

static PROFILE: TriggerProfile = TriggerProfile {
    name: "http",
    origin_number: 2,
    is_stream: false,
    description: "Turns HTTP requests into synchronous calls.",
    fields: &[
        TriggerField {
            name: "path",
            value: FieldValue::Text,
            required: true,
            description: "Such as `/hello/{name}`.",
        },
        TriggerField {
            name: "methods",
            value: FieldValue::TextList,
            required: false,
            description: "Such as `GET`; any if absent or empty.",
        },
        TriggerField {
            name: "auth",
            value: FieldValue::Choice(&["none", "key"]),
            required: false,
            description: "`none`, or `key`, the default.",
        },
    ],
    decode: decode_config::<HttpTrigger>,
};
