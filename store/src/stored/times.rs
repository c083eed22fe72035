//! Times as they are stored: microseconds since 1970, so that the finer part is cut off.

use std::time::Duration;

use hanshu_core::Timestamp;
use hanshu_core::ports::QueueError;

use super::unreadable::unreadable;

/// A stored time.
pub(crate) fn time(us: i64) -> Result<Timestamp, QueueError> {
    Timestamp::from_microsecond(us).map_err(|error| unreadable("time", error))
}

/// When a hold that begins now ends, in microseconds. A hold is at most a century, so that the
/// sum cannot overflow.
pub(crate) fn hold_end(now: Timestamp, hold: Duration) -> i64 {
    const CENTURY_US: i64 = 100 * 366 * 24 * 3600 * 1_000_000;
    let hold = i64::try_from(hold.as_micros()).map_or(CENTURY_US, |us| us.min(CENTURY_US));
    now.as_microsecond().saturating_add(hold)
}
