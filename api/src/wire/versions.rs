//! Published versions: `/v1/functions/{name}/versions`.

use hanshu_core::{Digest, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One immutable version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    /// From 1: the `qualifier` to call it by.
    pub version: u32,
    /// Digest of configuration and code together.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// The package's SHA-256.
    #[schema(value_type = String)]
    pub code: Digest,
    /// When it was published.
    #[schema(value_type = String, format = DateTime)]
    pub published_at: Timestamp,
}

/// A function's versions, from the lowest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionList {
    /// All published versions.
    pub versions: Vec<VersionView>,
}
