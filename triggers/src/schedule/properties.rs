//! Properties of every cron line, time zone and time: the fuzz target `cron`.

use hanshu_core::Timestamp;
use jiff::civil::DateTime;

use super::cron_expression::YEAR_MAX;
use super::{CronSchedule, later};

/// Moments between a time and its tick that are looked at.
const MOMENTS: i64 = 48;
/// Longer than any line that an error may quote, with the words around it.
const MESSAGE_BYTES_MAX: usize = 4_500;

/// `text` is a cron expression, a zone, and a time in seconds since 1970, a line each. If there is a
/// tick, it comes after that time, the clocks show what the expression names, and no moment before it
/// would have done.
///
/// # Panics
/// A property does not hold.
pub fn cron(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.splitn(3, '\n');
    let (line, zone) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let after = lines.next().and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0);
    let after = Timestamp::from_second(after).unwrap_or_default();
    let schedule = match CronSchedule::parse(line, zone) {
        Ok(schedule) => schedule,
        Err(error) => {
            assert!((1..MESSAGE_BYTES_MAX).contains(&error.to_string().len()), "{error}");
            return;
        }
    };
    match schedule.next(after) {
        Some(tick) => {
            assert!(schedule.ever_ticks());
            check_is_tick(&schedule, after, tick);
            check_is_next(&schedule, after, tick);
        }
        None => {
            let end = DateTime::constant(YEAR_MAX, 12, 31, 23, 59, 59, 0);
            let end = schedule.zone.to_timestamp(end).unwrap_or(Timestamp::MAX);
            if schedule.ever_ticks() {
                for moment in moments(after, end) {
                    assert!(!would_tick(&schedule, moment), "{moment} is a tick, after {after}");
                }
            }
        }
    }
}

fn check_is_tick(schedule: &CronSchedule, after: Timestamp, tick: Timestamp) {
    assert!(after < tick, "{tick} is not after {after}");
    assert_eq!(tick.subsec_nanosecond(), 0);
    assert!((1970..=YEAR_MAX).contains(&schedule.zone.to_datetime(tick).year()), "{tick}");
    let jumped = schedule.offset_changes(tick);
    assert!(
        clock_matches(schedule, tick) || (!schedule.expression.elapsed && jumped),
        "{tick} does not fit"
    );
}

fn check_is_next(schedule: &CronSchedule, after: Timestamp, tick: Timestamp) {
    for moment in moments(after, tick) {
        if moment == tick {
            continue;
        }
        assert!(!would_tick(schedule, moment), "{moment} is a tick between {after} and {tick}");
        assert_eq!(schedule.next(moment), Some(tick), "after {moment}, as after {after}");
    }
}

/// Whole seconds after the one, up to the other: the first few, the last few, some between.
fn moments(after: Timestamp, until: Timestamp) -> impl Iterator<Item = Timestamp> {
    let (from, to) = (after.as_second() + 1, until.as_second());
    let between = (to - from).max(0);
    (0..MOMENTS)
        .flat_map(move |part| [from + part, to - part, from + between * part / MOMENTS])
        .filter(move |second| (from..=to).contains(second))
        .filter_map(|second| Timestamp::from_second(second).ok())
}

/// Whether this moment is a tick for sure. Of fixed lines those are the moments that the clocks
/// show once.
fn would_tick(schedule: &CronSchedule, moment: Timestamp) -> bool {
    let once = || {
        let time = schedule.zone.to_datetime(moment);
        let ambiguous = schedule.zone.to_ambiguous_timestamp(time);
        !ambiguous.is_ambiguous() && later(moment).is_some()
    };
    clock_matches(schedule, moment) && (schedule.expression.elapsed || once())
}

/// Whether the wall clock of the zone matches the expression.
fn clock_matches(schedule: &CronSchedule, moment: Timestamp) -> bool {
    let (expression, time) = (&schedule.expression, schedule.zone.to_datetime(moment));
    expression.matches(time.date())
        && expression.hours.has(time.hour())
        && expression.minutes.has(time.minute())
        && expression.seconds.has(time.second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::replay;

    #[test]
    fn the_properties_of_cron_hold_for_the_corpus() {
        replay("cron", cron);
    }
}
