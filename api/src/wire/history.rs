//! The history of ended asynchronous invocations: `GET /v1/invocations`.

use hanshu_core::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::invocations::InvocationView;

/// A page of the history, newest end first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct InvocationList {
    /// The invocations, without their results.
    pub invocations: Vec<InvocationView>,
    /// Where the next page begins: the `cursor` to ask for it with; `null` if there is none.
    pub next: Option<String>,
    /// With `q`: the search stopped at its bound, having looked at all that ended at or after
    /// this. `next` continues it. `null` if nothing was left out.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub searched_to: Option<Timestamp>,
}
