//! How the server is: `/healthz` and `/readyz`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The process is alive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// The text `ok`, always.
    pub status: String,
    /// Version of the program.
    pub version: String,
}

/// Whether it can serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// 200 if so, else 503.
    pub ready: bool,
    /// Why it cannot serve; empty if it can.
    pub reasons: Vec<NotReady>,
}

/// One reason not to be ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotReady {
    /// The part that is not ready.
    pub part: String,
    /// What is wrong, and what to do.
    pub reason: String,
}
