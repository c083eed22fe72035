//! A cron expression as sets of numbers, and the next wall-clock time that matches it: pure.

use jiff::civil::{Date, DateTime, Time};

use super::day_fields::DayFields;
use super::number_set::NumberSet;

pub(super) const YEAR_MIN: i16 = 1970;
pub(super) const YEAR_MAX: i16 = 2099;

/// A parsed cron expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CronExpression {
    pub(super) seconds: NumberSet,
    pub(super) minutes: NumberSet,
    pub(super) hours: NumberSet,
    /// Whether the hour field has `*` or a step.
    pub(super) elapsed: bool,
    pub(super) days: DayFields,
    pub(super) months: NumberSet,
    /// Years, each as its distance from 1970.
    pub(super) years: [NumberSet; 3],
}

impl CronExpression {
    /// The first wall-clock time that matches, `from` included.
    pub(super) fn at_or_after(&self, from: DateTime) -> Option<DateTime> {
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

    pub(super) fn matches(&self, date: Date) -> bool {
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
