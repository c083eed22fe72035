//! Invocations: `GET /v1/invocations/{id}`.

use hanshu_core::{
    FunctionName, InvocationState, Namespace, NodeId, Qualifier, RequestId, StatusCode, Timestamp,
    TriggerKind, TriggerName,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The body of a 202.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationAccepted {
    /// The same as in `x-request-id` and at the end of `Location`.
    #[schema(value_type = String)]
    pub request_id: RequestId,
}

/// The body of a 500, 504 or 409: what the function did wrong, or that it was cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionFailure {
    /// 1 for what user code raised, −1 for what the platform saw.
    pub error_code: i32,
    /// The error's message, for people.
    pub error_message: String,
    /// The error's type, where the language has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The language's stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_trace: Option<String>,
    /// The same as in `x-request-id`.
    #[schema(value_type = String)]
    pub request_id: RequestId,
    /// SCF's code: 430, 433 …
    #[schema(value_type = u16)]
    pub status_code: StatusCode,
}

/// An invocation and its state. Every field is always present.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationView {
    /// The same in every attempt.
    #[schema(value_type = String)]
    pub request_id: RequestId,
    /// The function's namespace.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The function that was called.
    #[schema(value_type = String)]
    pub function: FunctionName,
    /// `$LATEST` or a number.
    #[schema(value_type = String)]
    pub version: Qualifier,
    /// What stood behind it; `null` for a call of the API.
    pub trigger: Option<InvocationTrigger>,
    /// The function that called this one; `null` if none did.
    #[serde(default)]
    pub called_by: Option<InvocationCaller>,
    /// `queued`, `running`, `retrying`, `succeeded`, `failed`, `expired` or `cancelled`.
    #[schema(value_type = String)]
    pub state: InvocationState,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub accepted_at: Timestamp,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// What the function returned, byte for byte. `null` also for a synchronous call: its caller
    /// was given the answer, and it is not kept.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Box<RawValue>>,
    /// Why it failed, if it did.
    pub error: Option<InvocationError>,
    /// The invocation that it runs again.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub rerun_of: Option<RequestId>,
}

/// The trigger behind an invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationTrigger {
    /// `timer`, `http` or `redis`; `null` if the trigger has been removed since.
    #[schema(value_type = Option<String>)]
    pub kind: Option<TriggerKind>,
    /// Its name within the function.
    #[schema(value_type = String)]
    pub name: TriggerName,
}

/// A function that called another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationCaller {
    /// The namespace of the function that called.
    #[schema(value_type = String)]
    pub namespace: Namespace,
    /// The name of the function that called.
    #[schema(value_type = String)]
    pub function: FunctionName,
    /// The invocation of it that called.
    #[schema(value_type = String)]
    pub request_id: RequestId,
}

/// One attempt to run an invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// Number of the attempt, counted from 1.
    pub number: u32,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// `null` while it runs, or if its node died.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// SCF's code: 200, 430, 433 …; `null` while it runs, or if its node died.
    #[schema(value_type = Option<u16>)]
    pub status_code: Option<StatusCode>,
    /// The node that it ran on.
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// Whether a sandbox was started for it.
    pub cold: bool,
}

/// What the function did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationError {
    /// 1 for what user code raised, −1 for what the platform saw.
    pub error_code: i32,
    /// The error's message, for people.
    pub error_message: String,
    /// The error's type, where the language has such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The language's stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_trace: Option<String>,
    /// SCF's code: 430, 433 …
    #[schema(value_type = u16)]
    pub status_code: StatusCode,
}
