//! Queues: `GET /v1/queues`.

use hanshu_core::{FunctionName, Namespace, Timestamp, TriggerName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// All queues that hold anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueList {
    /// Queues, ordered by name.
    pub queues: Vec<QueueView>,
}

/// One queue's figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueView {
    /// The function's namespace.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The function that runs the events.
    #[schema(value_type = String)]
    pub function: FunctionName,
    /// The trigger that feeds it; `null` for direct calls.
    #[schema(value_type = Option<String>)]
    pub trigger: Option<TriggerName>,
    /// Waiting, retries that are not due yet included.
    pub waiting: u64,
    /// Events that are running.
    pub running: u64,
    /// When the oldest waiting event was accepted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub oldest_at: Option<Timestamp>,
    /// Seconds that it has waited.
    pub oldest_age_s: Option<u64>,
    /// Ended in failure or expiry, within their keep time.
    pub dead_lettered: u64,
}
