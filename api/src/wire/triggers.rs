//! Triggers: as part of a deploy, and `/v1/functions/{name}/triggers…`.

use hanshu_core::{FunctionName, Namespace, RequestId, Timestamp, TriggerKind, TriggerName};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A trigger as in `hanshu.toml`: these fields, and those of its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerSettings {
    /// The trigger's kind, such as `timer`.
    #[serde(rename = "type")]
    pub kind: TriggerKind,
    /// Its name within the function; the type if absent, which may occur once then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it is switched on; `true` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The fields of its type.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// A trigger as it is: these fields, and those of its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerDetail {
    /// Its name within the function.
    pub name: TriggerName,
    /// The trigger's kind, such as `timer`.
    #[serde(rename = "type")]
    pub kind: TriggerKind,
    /// Whether it is switched on.
    pub enabled: bool,
    /// What it does, in a few words.
    pub summary: String,
    /// The next three ticks of a timer that is switched on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_ticks: Vec<TriggerTick>,
    /// What keeps it from working now, such as a stream that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_problem: Option<String>,
    /// The fields of its type. Passwords are shown as `***`.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// A coming tick of a timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerTick {
    /// When the timer ticks.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The same in the timer's zone: `2026-01-31T09:00:00+08:00[Asia/Shanghai]`.
    pub local: String,
}

/// A function's triggers, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerList {
    /// The function's namespace.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The function that they start.
    #[schema(value_type = String)]
    pub function: FunctionName,
    /// All triggers of the function.
    pub triggers: Vec<TriggerDetail>,
}

/// `PATCH`: what to change of a trigger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TriggerChange {
    /// Switch it on or off. The next deploy sets what `hanshu.toml` says.
    pub enabled: bool,
}

/// A timer's event was queued by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerFired {
    /// To ask for its end with `GET /v1/invocations/{requestId}`.
    #[schema(value_type = String)]
    pub request_id: RequestId,
}
