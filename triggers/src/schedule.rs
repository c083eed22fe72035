//! Cron text and a zone → the next tick. Pure. Why the walk is our own: `docs/adr/0004-cron.md`.
//!
//! Summer time, after Vixie's cron: a line with fixed hours ticks once for every wall-clock time
//! that it names. A time that the clocks skip ticks at the jump, one that they show twice ticks
//! the first time. A line with `*` or a step in the hour field follows elapsed time: it ticks
//! whenever the clocks on the wall match, twice in the doubled hour and never in the skipped one.

mod days;
#[cfg(any(test, fuzzing))]
mod properties;
mod text;

use std::time::Duration;

use hanshu_core::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use days::Days;
#[cfg(any(test, fuzzing))]
pub use properties::cron;
pub use text::CronError;

/// When a timer ticks. Ticks are whole seconds of the years 1970 to 2099.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    line: Line,
    zone: TimeZone,
}

/// A cron line, as sets.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    seconds: Bits,
    minutes: Bits,
    hours: Bits,
    /// Whether the hour field has `*` or a step.
    elapsed: bool,
    days: Days,
    months: Bits,
    /// Year − 1970.
    years: [Bits; 3],
}

/// A set of numbers below 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bits(u64);

const YEAR_MIN: i16 = 1970;
const YEAR_MAX: i16 = 2099;
/// More changes of offset than any zone has from 1970 to 2099 (Morocco's four a year lead).
const OFFSETS_MAX: usize = 1_000;

impl Schedule {
    /// Reads 5 fields (crontab: from the minute on), 6 (seconds first) or 7 (seconds … year), in
    /// an IANA zone.
    ///
    /// # Errors
    /// [`CronError`], which names the field, its value and the rule it breaks.
    pub fn parse(cron: &str, zone: &str) -> Result<Self, CronError> {
        let line = text::line(cron)?;
        let Ok(zone) = TimeZone::get(zone) else {
            return Err(CronError::Zone(zone.chars().take(80).collect()));
        };
        Ok(Self { line, zone })
    }

    /// The first tick after `after`; `None` if there is none up to 2099. Looks at no more than
    /// 1,560 months for each of at most [`OFFSETS_MAX`] changes of the zone's offset.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Ticks are whole seconds, so that the next one is after the second that `after` is in.
        let after = Timestamp::from_second(floor_second(after)).ok()?;
        if self.line.elapsed { self.next_elapsed(after) } else { self.next_fixed(after) }
    }

    /// Whether any date matches at all: February 30 does not.
    pub fn ever_ticks(&self) -> bool {
        self.line.at_or_after(DateTime::constant(YEAR_MIN, 1, 1, 0, 0, 0, 0)).is_some()
    }

    /// Wall-clock times in order; each is one instant.
    fn next_fixed(&self, after: Timestamp) -> Option<Timestamp> {
        let shown = self.zone.to_datetime(after);
        let from = if self.instant(shown)? == after {
            second_after(shown)?
        } else {
            // The clocks show this time for the second time: go on where that ends.
            let mut jumps = self.zone.preceding(later(after)?).map(|jump| jump.timestamp());
            let jump = jumps.find(|jump| self.offset_changes(*jump))?;
            self.zone.to_offset(earlier(jump)?).to_datetime(jump)
        };
        self.instant(self.line.at_or_after(from)?)
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
                offset.to_timestamp(self.line.at_or_after(offset.to_datetime(from))?).ok()?;
            match self.zone.following(from).next().map(|jump| jump.timestamp()) {
                Some(jump) if jump <= tick => from = jump,
                _ => return Some(tick),
            }
        }
        None
    }
}

impl Line {
    /// The first wall-clock time that matches, `from` included.
    fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
        let from = from.max(DateTime::constant(YEAR_MIN, 1, 1, 0, 0, 0, 0));
        let (today, time) = (from.date(), from.time());
        if self.matches(today)
            && let Some(time) = self.time_at_or_after(time)
        {
            return Some(today.to_datetime(time));
        }
        let date = self.date_after(today)?;
        Some(date.to_datetime(self.time_at_or_after(Time::midnight())?))
    }

    fn matches(&self, date: Date) -> bool {
        self.has_year(date.year())
            && self.months.has(date.month())
            && self.days.of_month(date.year(), date.month()).has(date.day())
    }

    fn has_year(&self, year: i16) -> bool {
        let Ok(index) = usize::try_from(year - YEAR_MIN) else { return false };
        let bit = i8::try_from(index % 64).unwrap_or_default();
        self.years.get(index / 64).is_some_and(|years| years.has(bit))
    }

    fn date_after(&self, date: Date) -> Option<Date> {
        let first = (date.year(), date.month(), date.day());
        for year in first.0..=YEAR_MAX {
            if !self.has_year(year) {
                continue;
            }
            for month in 1..=12 {
                if (year, month) < (first.0, first.1) || !self.months.has(month) {
                    continue;
                }
                let from = if (year, month) == (first.0, first.1) { first.2 + 1 } else { 1 };
                if let Some(day) = self.days.of_month(year, month).at_or_after(from) {
                    return Date::new(year, month, day).ok();
                }
            }
        }
        None
    }

    fn time_at_or_after(&self, from: Time) -> Option<Time> {
        let (hour, minute, second) = (from.hour(), from.minute(), from.second());
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.at_or_after(second)
            {
                return Time::new(hour, minute, second, 0).ok();
            }
            if let Some(minute) = self.minutes.at_or_after(minute + 1) {
                return Time::new(hour, minute, self.seconds.at_or_after(0)?, 0).ok();
            }
        }
        let hour = self.hours.at_or_after(hour + 1)?;
        Time::new(hour, self.minutes.at_or_after(0)?, self.seconds.at_or_after(0)?, 0).ok()
    }
}

impl Bits {
    fn has(self, number: i8) -> bool {
        (0..64).contains(&number) && self.0 >> number & 1 == 1
    }

    fn add(&mut self, number: i8) {
        if (0..64).contains(&number) {
            self.0 |= 1 << number;
        }
    }

    /// The smallest number that is not below `from`.
    fn at_or_after(self, from: i8) -> Option<i8> {
        let left = if from < 64 { self.0 >> from << from } else { 0 };
        (left != 0).then(|| i8::try_from(left.trailing_zeros()).unwrap_or(i8::MAX))
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
