//! Parses cron text. The `cron` crate reads each field by itself, so that an error can name the
//! field; what it does not know (SCF's weekdays from 0, `L`, `W`, `#`) is read here.

use std::str::FromStr;

use cron::TimeUnitSpec;
use hanshu_core::ErrorKind;

use super::cron_expression::{CronExpression, YEAR_MAX, YEAR_MIN};
use super::day_fields::{DayFields, MonthDayField, WeekdayField};
use super::number_set::NumberSet;

/// The cron text or the time zone is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// A field breaks its rule.
    #[error("cron field `{field}` is `{value}`: expected {rule}")]
    Field {
        /// Such as `minute`.
        field: &'static str,
        /// Its text in the expression.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
    /// Neither 5, 6 nor 7 fields.
    #[error(
        "cron line `{line}` has {fields} fields: expected 5 (minute hour day month weekday), 6 \
         (seconds first) or 7 (seconds first, year last)"
    )]
    Fields {
        /// The expression as it was given.
        line: String,
        /// The number of its fields.
        fields: usize,
    },
    /// The text is longer than any sensible one.
    #[error("the cron line has {bytes} bytes: expected at most {bytes_max}")]
    TooLong {
        /// Size of the expression in bytes.
        bytes: usize,
        /// Most bytes an expression may have.
        bytes_max: usize,
    },
    /// No date fits, such as February 30.
    #[error("cron line `{0}` never ticks: no date from 1970 to 2099 fits it")]
    Never(String),
    /// The time zone is unknown.
    #[error("timezone `{0}` is not known: expected an IANA name such as `Asia/Shanghai` or `UTC`")]
    Zone(String),
}

impl CronError {
    /// The kind that decides the status.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

const LINE_BYTES_MAX: usize = 1_000;

/// One of the seven fields: its name, its rule, and the text of the other six around it. All
/// seven are always given to the `cron` crate: it needs no blanks between fields and would read
/// `**` as two of them.
struct CronField {
    name: &'static str,
    rule: &'static str,
    before: &'static str,
    after: &'static str,
}

const SECOND: CronField = CronField {
    name: "second",
    rule: "`*`, numbers 0 to 59, ranges `a-b`, steps `a/n`, lists with `,`",
    before: "",
    after: " * * * * * *",
};
const MINUTE: CronField = CronField {
    name: "minute",
    rule: "`*`, numbers 0 to 59, ranges `a-b`, steps `a/n`, lists with `,`",
    before: "* ",
    after: " * * * * *",
};
const HOUR: CronField = CronField {
    name: "hour",
    rule: "`*`, numbers 0 to 23, ranges `a-b`, steps `a/n`, lists with `,`",
    before: "* * ",
    after: " * * * *",
};
const DAY: CronField = CronField {
    name: "day",
    rule: "`*`, `?`, numbers 1 to 31, ranges `a-b`, steps `a/n`, `L` (last day), `LW` (last \
           working day), `nW` (working day nearest to n), lists with `,`",
    before: "* * * ",
    after: " * * *",
};
const MONTH: CronField = CronField {
    name: "month",
    rule: "`*`, numbers 1 to 12, names JAN to DEC, ranges `a-b`, steps `a/n`, lists with `,`",
    before: "* * * * ",
    after: " * *",
};
const WEEKDAY: CronField = CronField {
    name: "weekday",
    rule: "`*`, `?`, numbers 0 (Sunday) to 6 (7 is Sunday too), names SUN to SAT, ranges `a-b`, \
           steps `a/n`, `nL` (the month's last n), `n#k` (the kth n, k from 1 to 5), lists \
           with `,`",
    before: "* * * * * ",
    after: " *",
};
const YEAR: CronField = CronField {
    name: "year",
    rule: "`*`, numbers 1970 to 2099, ranges `a-b`, steps `a/n`, lists with `,`",
    before: "* * * * * * ",
    after: "",
};

/// Parses 5, 6 or 7 fields.
pub(super) fn parse(cron: &str) -> Result<CronExpression, CronError> {
    if LINE_BYTES_MAX < cron.len() {
        return Err(CronError::TooLong { bytes: cron.len(), bytes_max: LINE_BYTES_MAX });
    }
    let fields: Vec<&str> = cron.split_ascii_whitespace().collect();
    let [second, minute, hour, day, month, weekday, year] = match fields[..] {
        [minute, hour, day, month, weekday] => ["0", minute, hour, day, month, weekday, "*"],
        [second, minute, hour, day, month, weekday] => {
            [second, minute, hour, day, month, weekday, "*"]
        }
        [a, b, c, d, e, f, g] => [a, b, c, d, e, f, g],
        _ => return Err(CronError::Fields { line: cron.into(), fields: fields.len() }),
    };
    Ok(CronExpression {
        seconds: SECOND.bits(second)?,
        minutes: MINUTE.bits(minute)?,
        hours: HOUR.bits(hour)?,
        elapsed: hour.contains(['*', '/']),
        days: DayFields { days: month_days(day)?, weekdays: week_days(weekday)? },
        months: MONTH.bits(month)?,
        years: years(year)?,
    })
}

impl CronField {
    fn error(&self, value: &str) -> CronError {
        CronError::Field {
            field: self.name,
            value: value.chars().take(80).collect(),
            rule: self.rule,
        }
    }

    /// The numbers that the field's text stands for.
    fn numbers(&self, text: &str) -> Result<Vec<u32>, CronError> {
        let error = |_| self.error(text);
        let line = format!("{}{text}{}", self.before, self.after);
        let read = cron::Schedule::from_str(&line).map_err(error)?;
        Ok(match self.name {
            "second" => read.seconds().iter().collect(),
            "minute" => read.minutes().iter().collect(),
            "hour" => read.hours().iter().collect(),
            "day" => read.days_of_month().iter().collect(),
            "month" => read.months().iter().collect(),
            "weekday" => read.days_of_week().iter().collect(),
            _ => read.years().iter().collect(),
        })
    }

    fn bits(&self, text: &str) -> Result<NumberSet, CronError> {
        let mut bits = NumberSet::default();
        for number in self.numbers(text)? {
            bits.add(i8::try_from(number).unwrap_or(i8::MAX));
        }
        Ok(bits)
    }
}

fn years(text: &str) -> Result<[NumberSet; 3], CronError> {
    let mut years = [NumberSet::default(); 3];
    let open = text.contains(['*', '/']);
    for year in YEAR.numbers(text)? {
        let year = i16::try_from(year).unwrap_or(i16::MAX);
        if !(YEAR_MIN..=YEAR_MAX).contains(&year) {
            // The crate's `*` and open steps go on to 2100.
            if open {
                continue;
            }
            return Err(YEAR.error(text));
        }
        let index = usize::try_from(year - YEAR_MIN).unwrap_or_default();
        if let Some(bits) = years.get_mut(index / 64) {
            bits.add(i8::try_from(index % 64).unwrap_or_default());
        }
    }
    Ok(years)
}

fn month_days(text: &str) -> Result<Option<MonthDayField>, CronError> {
    if matches!(text, "*" | "?") {
        return Ok(None);
    }
    let mut days = MonthDayField::default();
    for item in text.split(',') {
        match item.to_ascii_uppercase().as_str() {
            "L" => days.last = true,
            "LW" | "WL" => days.last_working = true,
            item => match item.strip_suffix('W') {
                Some(day) => {
                    days.nearest_working.add(one(day, 1..=31).ok_or(DAY.error(text))?);
                }
                None => {
                    let bits = DAY.bits(item).map_err(|_| DAY.error(text))?;
                    days.numbers.0 |= bits.0;
                }
            },
        }
    }
    Ok(Some(days))
}

fn week_days(text: &str) -> Result<Option<WeekdayField>, CronError> {
    if matches!(text, "*" | "?") {
        return Ok(None);
    }
    let error = || WEEKDAY.error(text);
    let mut days = WeekdayField::default();
    for item in text.split(',') {
        let item = item.to_ascii_uppercase();
        if let Some((day, nth)) = item.split_once('#') {
            let nth = one(nth, 1..=5).ok_or_else(error)?;
            days.nth.add(week_day(day).ok_or_else(error)? + 7 * (nth - 1));
        } else if let Some(day) = item.strip_suffix('L') {
            days.last.add(week_day(day).ok_or_else(error)?);
        } else {
            days.numbers.0 |= week_range(&item).ok_or_else(error)?.0;
        }
    }
    Ok(Some(days))
}

/// `*/2`, `MON`, `1`, `1-5`, `MON-FRI`, `5-7`, `1/2`, `1-5/2`, with Sunday = 0 and 7.
fn week_range(item: &str) -> Option<NumberSet> {
    let (range, step) = match item.split_once('/') {
        Some((range, step)) => (range, Some(step.parse::<usize>().ok().filter(|n| *n <= 7)?)),
        None => (item, None),
    };
    let (from, to) = match range.split_once('-') {
        Some((from, to)) => {
            let (from, to) = (week_day(from)?, week_day(to)?);
            // `5-7`, `FRI-SUN`: up to the Sunday after.
            (from, if to == 0 && 0 < from { 7 } else { to })
        }
        None if matches!(range, "*" | "?") => (0, 6),
        None => {
            let from = week_day(range)?;
            (from, if step.is_some() { 6 } else { from })
        }
    };
    let step = step.unwrap_or(1);
    if to < from || step == 0 {
        return None;
    }
    let mut bits = NumberSet::default();
    (from..=to).step_by(step).for_each(|day| bits.add(day % 7));
    Some(bits)
}

/// A weekday by number (Sunday 0 or 7) or, read by the crate (Sunday 1), by name.
fn week_day(text: &str) -> Option<i8> {
    if let Some(number) = one(text, 0..=7) {
        return Some(number % 7);
    }
    if !text.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    match WEEKDAY.numbers(text).ok()?[..] {
        [number] => i8::try_from(number).ok().map(|number| number - 1),
        _ => None,
    }
}

/// A number that consists of digits only.
fn one(text: &str, within: std::ops::RangeInclusive<i8>) -> Option<i8> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|number| within.contains(number))
}
