//! Which days of a month match: the day field, the weekday field, and how they combine.

use jiff::civil::Date;

use super::number_set::NumberSet;

/// Day and weekday fields. Where both are restricted, a day that matches either matches,
/// as in SCF.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DayFields {
    /// `None` if the field is `*` or `?`.
    pub(super) days: Option<MonthDayField>,
    /// `None` if the field is `*` or `?`.
    pub(super) weekdays: Option<WeekdayField>,
}

/// The day field, restricted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MonthDayField {
    /// 1 to 31.
    pub(super) numbers: NumberSet,
    /// `L`: the last day.
    pub(super) last: bool,
    /// `LW`: the last working day.
    pub(super) last_working: bool,
    /// `nW`: the working day nearest to the nth, within the month.
    pub(super) nearest_working: NumberSet,
}

/// The weekday field, restricted; Sunday is 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct WeekdayField {
    /// 0 to 6.
    pub(super) numbers: NumberSet,
    /// `nL`: the month's last such day.
    pub(super) last: NumberSet,
    /// `n#k`: the month's kth such day, as n + 7 (k − 1).
    pub(super) nth: NumberSet,
}

impl DayFields {
    /// The days of a month that match.
    pub(super) fn of_month(&self, year: i16, month: i8) -> NumberSet {
        let Ok(first) = Date::new(year, month, 1) else { return NumberSet::default() };
        let month = MonthLayout {
            length: first.days_in_month(),
            first: first.weekday().to_sunday_zero_offset(),
        };
        match (&self.days, &self.weekdays) {
            (None, None) => month.days_where(|_| true),
            (Some(days), None) => days.of(month),
            (None, Some(weekdays)) => weekdays.of(month),
            (Some(days), Some(weekdays)) => NumberSet(days.of(month).0 | weekdays.of(month).0),
        }
    }
}

/// The shape of one month of one year.
#[derive(Clone, Copy, Debug)]
struct MonthLayout {
    /// The number of its days.
    length: i8,
    /// The weekday of its first day.
    first: i8,
}

impl MonthLayout {
    fn weekday(self, day: i8) -> i8 {
        (self.first + day - 1) % 7
    }

    fn days_where(self, fits: impl Fn(i8) -> bool) -> NumberSet {
        let mut days = NumberSet::default();
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

impl MonthDayField {
    fn of(&self, month: MonthLayout) -> NumberSet {
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

impl WeekdayField {
    fn of(&self, month: MonthLayout) -> NumberSet {
        month.days_where(|day| {
            let weekday = month.weekday(day);
            self.numbers.has(weekday)
                || (month.length - 7 < day && self.last.has(weekday))
                || self.nth.has(weekday + 7 * ((day - 1) / 7))
        })
    }
}
