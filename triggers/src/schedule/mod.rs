//! The next tick of a cron expression in a time zone: pure.
//!
//! No crate was enough (docs/adr/0004-cron.md): `cron` loses ticks that summer time skips and knows
//! neither `L`, `W` nor `#`, `croner` has another rule for summer time. Here it is that of Vixie's
//! cron. An expression with fixed hours ticks once for every wall-clock time that it names: a time
//! that the clocks skip ticks at the jump, a time that they show twice ticks the first time. An
//! expression with `*` or a step in the hour field follows elapsed time: it ticks whenever the
//! wall clock matches, twice in the repeated hour and never in the skipped one.

mod cron_expression;
mod cron_parse;
mod day_fields;
mod number_set;
#[cfg(any(test, fuzzing))]
mod properties;

use std::time::Duration;

use hanshu_core::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use cron_expression::{CronExpression, YEAR_MIN};
pub use cron_parse::CronError;
#[cfg(any(test, fuzzing))]
pub use properties::cron;

/// When a timer ticks. Ticks are whole seconds of the years 1970 to 2099.
#[derive(Clone, Debug, PartialEq)]
pub struct CronSchedule {
    expression: CronExpression,
    zone: TimeZone,
}

/// More changes of offset than any zone has from 1970 to 2099 (Morocco's four a year lead).
const OFFSETS_MAX: usize = 1_000;

impl CronSchedule {
    /// Reads 5 fields (crontab: from the minute on), 6 (seconds first) or 7 (seconds … year), in
    /// an IANA zone.
    ///
    /// # Errors
    /// [`CronError`], which names the field, its value and the rule it breaks.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, CronError> {
        let expression = cron_parse::parse(cron)?;
        let Ok(zone) = TimeZone::get(zone) else {
            return Err(CronError::Zone(zone.chars().take(80).collect()));
        };
        Ok(Self { expression, zone })
    }

    /// The first tick after `after`; `None` if there is none up to 2099. Looks at no more than
    /// 1,560 months for each of at most [`OFFSETS_MAX`] changes of the zone's offset.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Ticks are whole seconds, so that the next one is after the second that `after` is in.
        let after = Timestamp::from_second(floor_second(after)).ok()?;
        if self.expression.elapsed { self.next_elapsed(after) } else { self.next_fixed(after) }
    }

    /// Whether any date matches at all: February 30 does not.
    pub fn ever_ticks(&self) -> bool {
        self.expression.at_or_after(DateTime::constant(YEAR_MIN, 1, 1, 0, 0, 0, 0)).is_some()
    }

    /// Wall-clock times in order; each is one instant.
    fn next_fixed(&self, after: Timestamp) -> Option<Timestamp> {
        let wall_time = self.zone.to_datetime(after);
        let from = if self.instant(wall_time)? == after {
            second_after(wall_time)?
        } else {
            // The clocks show this time for the second time: go on where that ends.
            let mut jumps = self.zone.preceding(later(after)?).map(|jump| jump.timestamp());
            let jump = jumps.find(|jump| self.offset_changes(*jump))?;
            self.zone.to_offset(earlier(jump)?).to_datetime(jump)
        };
        self.instant(self.expression.at_or_after(from)?)
    }

    /// When the clocks show a time first; if they skip it, when they jump.
    fn instant(&self, time: DateTime) -> Option<Timestamp> {
        match self.zone.to_ambiguous_timestamp(time).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(time).ok(),
            AmbiguousOffset::Fold { before, .. } => before.to_timestamp(time).ok(),
            AmbiguousOffset::Gap { after, .. } => {
                // With the offset of after the jump, the time comes out just before it.
                let before_jump = after.to_timestamp(time).ok()?;
                let mut jumps = self.zone.following(before_jump).map(|jump| jump.timestamp());
                jumps.find(|jump| self.offset_changes(*jump))
            }
        }
    }

    /// Zones also list changes of their abbreviation alone.
    fn offset_changes(&self, at: Timestamp) -> bool {
        earlier(at).is_some_and(|t| self.zone.to_offset(t) != self.zone.to_offset(at))
    }

    /// Stretches of equal offset in order; in each, wall-clock times are instants.
    fn next_elapsed(&self, after: Timestamp) -> Option<Timestamp> {
        let mut from = later(after)?;
        for _ in 0..OFFSETS_MAX {
            let offset: Offset = self.zone.to_offset(from);
            let tick =
                offset.to_timestamp(self.expression.at_or_after(offset.to_datetime(from))?).ok()?;
            match self.zone.following(from).next().map(|jump| jump.timestamp()) {
                Some(jump) if jump <= tick => from = jump,
                _ => return Some(tick),
            }
        }
        None
    }
}

fn floor_second(time: Timestamp) -> i64 {
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

fn later(time: Timestamp) -> Option<Timestamp> {
    time.checked_add(Duration::from_secs(1)).ok()
}

fn earlier(time: Timestamp) -> Option<Timestamp> {
    time.checked_sub(Duration::from_secs(1)).ok()
}

fn second_after(time: DateTime) -> Option<DateTime> {
    time.checked_add(Duration::from_secs(1)).ok()
}

#[cfg(test)]
mod tests;
