//! The body of every refusal: RFC 9457, `application/problem+json`.

use hanshu_core::RequestId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemBody {
    /// Always `about:blank`: `code` says what it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable, for programs: `invalid_json`, `not_found`, `throttled` …
    pub code: String,
    /// What was wrong.
    pub detail: String,
    /// What to do.
    pub hint: String,
    /// To find it in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub request_id: Option<RequestId>,
    /// Which field or parameter broke a rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What was found there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What was expected there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}
