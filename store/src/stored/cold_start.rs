//! How a sandbox came up: a part of stored records and log batches.

use std::time::Duration;

use hanshu_core::{ColdStart, ColdStartParts};
use serde::{Deserialize, Serialize};

/// A [`ColdStart`] as it is stored, within a value that has a format version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredColdStart {
    total: Duration,
    parts: Option<StoredColdStartParts>,
    memory_mb: u32,
    memory_bytes: u64,
    /// The oldest rows do not have it.
    #[serde(default, rename = "from_stem", alias = "from_prewarmed")]
    from_prewarmed: bool,
}

/// [`ColdStartParts`] as they are stored.
#[derive(Debug, Serialize, Deserialize)]
struct StoredColdStartParts {
    code: Duration,
    runtime: Duration,
    function: Duration,
}

impl From<ColdStart> for StoredColdStart {
    fn from(cold_start: ColdStart) -> Self {
        let ColdStart { total, parts, memory_mb, memory_bytes, from_prewarmed } = cold_start;
        let parts = parts.map(|ColdStartParts { code, runtime, function }| StoredColdStartParts {
            code,
            runtime,
            function,
        });
        Self { total, parts, memory_mb, memory_bytes, from_prewarmed }
    }
}

impl From<StoredColdStart> for ColdStart {
    fn from(stored: StoredColdStart) -> Self {
        let StoredColdStart { total, parts, memory_mb, memory_bytes, from_prewarmed } = stored;
        let parts = parts.map(|StoredColdStartParts { code, runtime, function }| ColdStartParts {
            code,
            runtime,
            function,
        });
        Self { total, parts, memory_mb, memory_bytes, from_prewarmed }
    }
}
