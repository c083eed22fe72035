//! The metrics of this crate. Every label has few values.

use std::time::Duration;

use metrics::{counter, gauge, histogram};

/// Counts an event that left its claim; `how` is `succeeded`, `failed`, `expired`,
/// `cancelled`, `retry`, `refused` or `lost`.
pub(crate) fn event_settled(how: &'static str) {
    counter!("hanshu_async_events_total", "how" => how).increment(1);
}

/// Records the time from an event's acceptance to its first claim.
pub(crate) fn event_waited(time: Duration) {
    histogram!("hanshu_async_wait_seconds").record(time.as_secs_f64());
}

/// Sets how many queued events run on this node now.
pub(crate) fn events_running(number: usize) {
    gauge!("hanshu_async_running").set(u32::try_from(number).unwrap_or(u32::MAX));
}

/// Counts a timer's tick; `how` is `queued`, `duplicate`, `refused`, `late` (given up after a
/// minute) or `skipped` (never tried: the clock or the process jumped over it).
pub(crate) fn tick(how: &'static str) {
    counter!("hanshu_timer_ticks_total", "how" => how).increment(1);
}

/// Counts an attempt at a batch of a stream; `how` is `done`, `failed`, `refused` or
/// `dead_lettered`.
pub(crate) fn batch(how: &'static str) {
    counter!("hanshu_stream_batches_total", "how" => how).increment(1);
}
