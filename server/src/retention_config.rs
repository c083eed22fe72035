//! Settings of what is kept of calls that are over: records and logs, and the history of events.

use std::time::Duration;

use hanshu_core::ports::HistoryBounds;
use serde::{Deserialize, Serialize};

const DAY: Duration = Duration::from_secs(86_400);
const MIB: u64 = 1024 * 1024;

/// Records and logs of calls.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Days they are kept.
    pub keep_days: u32,
    /// MiB they may use.
    pub keep_mb: u64,
}

/// The history of ended asynchronous events.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// Days an ended event is kept.
    pub keep_days: u32,
    /// Events that are kept; beyond it the oldest go.
    pub keep_max: u64,
    /// Days an ended event's input is kept, so that it can be run again.
    pub inputs_keep_days: u32,
    /// MiB that inputs may use; beyond it the oldest go.
    pub inputs_keep_mb: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { keep_days: 7, keep_mb: 1_024 }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self { keep_days: 30, keep_max: 1_000_000, inputs_keep_days: 7, inputs_keep_mb: 1_024 }
    }
}

impl HistoryConfig {
    /// As the history takes them.
    pub(crate) fn bounds(&self) -> HistoryBounds {
        HistoryBounds {
            age_max: DAY * self.keep_days,
            events_max: self.keep_max,
            input_age_max: DAY * self.inputs_keep_days,
            input_bytes_max: self.inputs_keep_mb.saturating_mul(MIB),
        }
    }
}
