//! Logs: `GET /v1/functions/{name}/logs`.

use hanshu_core::{LogSource, RequestId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a function's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogPageView {
    /// Lines in the order in which they were written.
    pub lines: Vec<LogLineView>,
    /// What to send as `after` for the page that follows.
    pub next: String,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLineView {
    /// When the platform read it.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Id of the invocation; `null` for output that arrived while no event ran.
    #[schema(value_type = Option<String>)]
    pub request_id: Option<RequestId>,
    /// `function`, or `platform` for START, Init Report, ERROR, END and Report.
    #[schema(value_type = String)]
    pub from: LogSource,
    /// The text, without its line end.
    pub text: String,
}
