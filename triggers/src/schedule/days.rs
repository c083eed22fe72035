//! Which days of a month a line means: day field, weekday field, and how they combine.

use jiff::civil::Date;

use super::Bits;

/// Day and weekday fields. Where both are restricted, a day that fits either fits (SCF §5.1).
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Days {
    /// `None`: `*` or `?`.
    pub(super) days: Option<MonthDays>,
    /// `None`: `*` or `?`.
    pub(super) weekdays: Option<WeekDays>,
}

/// The day field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MonthDays {
    /// 1 to 31.
    pub(super) numbers: Bits,
    /// `L`: the last day.
    pub(super) last: bool,
    /// `LW`: the last working day.
    pub(super) last_working: bool,
    /// `nW`: the working day nearest to the nth, within the month.
    pub(super) nearest_working: Bits,
}

/// The weekday field; Sunday is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WeekDays {
    /// 0 to 6.
    pub(super) numbers: Bits,
    /// `nL`: the month's last such day.
    pub(super) last: Bits,
    /// `n#k`: the month's kth such day, as n + 7 (k − 1).
    pub(super) nth: Bits,
}

impl Days {
    /// The days of a month that fit.
    pub(super) fn of_month(&self, year: i16, month: i8) -> Bits {
        let Ok(first) = Date::new(year, month, 1) else { return Bits::default() };
        let month =
            Month { length: first.days_in_month(), first: first.weekday().to_sunday_zero_offset() };
        match (&self.days, &self.weekdays) {
            (None, None) => month.days_where(|_| true),
            (Some(days), None) => days.of(month),
            (None, Some(weekdays)) => weekdays.of(month),
            (Some(days), Some(weekdays)) => Bits(days.of(month).0 | weekdays.of(month).0),
        }
    }
}

/// All that matters of a month.
#[derive(Clone, Copy, Debug)]
struct Month {
    /// Days in it.
    length: i8,
    /// The first day's weekday.
    first: i8,
}

impl Month {
    fn weekday(self, day: i8) -> i8 {
        (self.first + day - 1) % 7
    }

    fn days_where(self, fits: impl Fn(i8) -> bool) -> Bits {
        let mut days = Bits::default();
        (1..=self.length).filter(|day| fits(*day)).for_each(|day| days.add(day));
        days
    }

    /// Monday to Friday: the day itself, else the nearest one of this month.
    fn nearest_working(self, day: i8) -> i8 {
        match self.weekday(day) {
            6 if day == 1 => 3,
            6 => day - 1,
            0 if day == self.length => day - 2,
            0 => day + 1,
            _ => day,
        }
    }
}

impl MonthDays {
    fn of(&self, month: Month) -> Bits {
        let mut days = month.days_where(|day| self.numbers.has(day));
        if self.last {
            days.add(month.length);
        }
        if self.last_working {
            days.add(match month.weekday(month.length) {
                6 => month.length - 1,
                0 => month.length - 2,
                _ => month.length,
            });
        }
        for day in (1..=month.length).filter(|day| self.nearest_working.has(*day)) {
            days.add(month.nearest_working(day));
        }
        days
    }
}

impl WeekDays {
    fn of(&self, month: Month) -> Bits {
        month.days_where(|day| {
            let weekday = month.weekday(day);
            self.numbers.has(weekday)
                || (month.length - 7 < day && self.last.has(weekday))
                || self.nth.has(weekday + 7 * ((day - 1) / 7))
        })
    }
}
