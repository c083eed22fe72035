//! Triggers: as part of a deploy, and `/v1/functions/{name}/triggers…`.

use hanshu_core::{
    FunctionName, HttpAuth, Namespace, RequestId, Timestamp, TriggerKind, TriggerName,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A trigger as `hanshu.toml` says it. `name` may be left out where a type occurs once; it is
/// then the type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(
    tag = "type",
    rename_all = "lowercase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum TriggerSettings {
    /// Queues an event at each tick.
    Timer {
        /// Its name within the function.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Switched on? `true` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
        /// 7 fields as SCF, 5-field crontab lines, or 6 fields (seconds first).
        #[schema(example = "*/5 * * * * * *")]
        cron: String,
        /// IANA zone; the server's if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timezone: Option<String>,
        /// `event.Message`: at most 4 KB; empty if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        argument: Option<String>,
    },
    /// Turns HTTP requests into synchronous calls.
    Http {
        /// Its name within the function.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Switched on? `true` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
        /// Such as `/hello/{name}`.
        path: String,
        /// Such as `GET`; any if absent or empty.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        methods: Option<Vec<String>>,
        /// `none`, or `key`, the default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<String>)]
        auth: Option<HttpAuth>,
    },
    /// Feeds batches of a user's Redis stream to the function.
    Redis {
        /// Its name within the function.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Switched on? `true` if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
        /// `redis://…`; may hold a password.
        url: String,
        /// The stream's key.
        stream: String,
        /// Entries per event, at most; 10 if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        batch: Option<u32>,
    },
}

/// A trigger as it is. Fields that its type does not have are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerDetail {
    /// Its name within the function.
    #[schema(value_type = String)]
    pub name: TriggerName,
    /// `timer`, `http` or `redis`.
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    pub kind: TriggerKind,
    /// Switched on?
    pub enabled: bool,
    /// Timer: as the user wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// Timer: the zone it is read in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Timer: `event.Message`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<String>,
    /// Timer that is switched on: its next three ticks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_ticks: Vec<TriggerTick>,
    /// HTTP: such as `/hello/{name}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// HTTP: upper case; empty means any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// HTTP: who may call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub auth: Option<HttpAuth>,
    /// HTTP with `auth` `key`: what to send as `x-hanshu-key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// HTTP: where to call it. Redis: where the stream is, a password shown as `***`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Redis: the stream's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Redis: entries per event, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<u32>,
    /// What keeps it from working now, such as a stream that is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_problem: Option<String>,
}

/// A coming tick of a timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerTick {
    /// The moment.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The same in the timer's zone: `2026-01-31T09:00:00+08:00[Asia/Shanghai]`.
    pub local: String,
}

/// A function's triggers, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TriggerList {
    /// Where the function lives.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// Whose they are.
    #[schema(value_type = String)]
    pub function: FunctionName,
    /// All of them.
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
