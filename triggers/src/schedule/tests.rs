//! Ticks, compared with an oracle.

use proptest::prelude::*;

use super::*;

/// The next `n` ticks after `from`, as the clocks of the zone show them.
fn ticks(cron: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
    let schedule = CronSchedule::parse(cron, zone).unwrap();
    let mut after: Timestamp = from.parse().unwrap();
    let mut ticks = Vec::new();
    while ticks.len() < n
        && let Some(tick) = schedule.next(after)
    {
        ticks.push(tick.to_zoned(schedule.zone.clone()).strftime("%F %T %:z").to_string());
        after = tick;
    }
    ticks
}

fn check(cron: &str, expected: &[&str]) {
    let ticks = ticks(cron, "UTC", "2026-11-22T18:00:00Z", expected.len());
    let expected: Vec<_> = expected.iter().map(|tick| format!("{tick} +00:00")).collect();
    assert_eq!(ticks, expected, "{cron}");
}

fn refused(cron: &str) -> String {
    CronSchedule::parse(cron, "UTC").unwrap_err().to_string()
}

#[test]
fn lines_have_five_six_or_seven_fields() {
    check("*/5 * * * *", &["2026-11-22 18:05:00", "2026-11-22 18:10:00"]);
    check("*/5 * * * * *", &["2026-11-22 18:00:05", "2026-11-22 18:00:10"]);
    check("*/5 * * * * * *", &["2026-11-22 18:00:05", "2026-11-22 18:00:10"]);
    for (line, fields) in [("", 0), ("* * * *", 4), ("* * * * * * * *", 8), ("@daily", 1)] {
        assert!(refused(line).contains(&format!("has {fields} fields")), "{line}");
    }
}

#[test]
fn the_samples_of_scf_tick_as_described() {
    check("0 0 2 1 * * *", &["2026-12-01 02:00:00", "2027-01-01 02:00:00"]);
    check("0 15 10 * * MON-FRI *", &["2026-11-23 10:15:00", "2026-11-24 10:15:00"]);
    check("0 0 10,14,16 * * * *", &["2026-11-23 10:00:00", "2026-11-23 14:00:00"]);
    check("0 */30 9-17 * * * *", &["2026-11-23 09:00:00", "2026-11-23 09:30:00"]);
    check("0 0 12 * * WED *", &["2026-11-25 12:00:00", "2026-12-02 12:00:00"]);
}

#[test]
fn lists_ranges_steps_and_names_work_in_every_field() {
    check("1/20 0 0 * * * *", &["2026-11-23 00:00:01", "2026-11-23 00:00:21"]);
    check("0 10-30/10,5 0 * * *", &["2026-11-23 00:05:00", "2026-11-23 00:10:00"]);
    check("0 0 0 1 JAN,jul *", &["2027-01-01 00:00:00", "2027-07-01 00:00:00"]);
    check("0 0 0 1 1 * 2028-2030/2", &["2028-01-01 00:00:00", "2030-01-01 00:00:00"]);
    check("0 0 29 2 *", &["2028-02-29 00:00:00", "2032-02-29 00:00:00"]);
}

#[test]
fn sunday_is_zero_and_seven() {
    let sundays = &["2026-11-29 00:00:00", "2026-12-06 00:00:00"];
    for line in ["0 0 * * 0", "0 0 * * 7", "0 0 * * SUN", "0 0 ? * sunday"] {
        check(line, sundays);
    }
    let weekend = &["2026-11-28 00:00:00", "2026-11-29 00:00:00", "2026-12-05 00:00:00"];
    for line in ["0 0 * * 6-7", "0 0 * * 0,6", "0 0 * * SAT-SUN"] {
        check(line, weekend);
    }
    check("0 0 * * 1/3", &["2026-11-23 00:00:00", "2026-11-26 00:00:00", "2026-11-30 00:00:00"]);
    check("0 0 * * */3", &["2026-11-25 00:00:00", "2026-11-28 00:00:00", "2026-11-29 00:00:00"]);
}

#[test]
fn day_or_weekday_fits_where_both_are_restricted() {
    check(
        "0 0 0 25 * MON *",
        &["2026-11-23 00:00:00", "2026-11-25 00:00:00", "2026-11-30 00:00:00"],
    );
    check("0 0 25 * ?", &["2026-11-25 00:00:00", "2026-12-25 00:00:00"]);
}

#[test]
fn last_working_and_nth_days_work() {
    check("0 0 L * *", &["2026-11-30 00:00:00", "2026-12-31 00:00:00"]);
    check("0 0 LW * ?", &["2026-11-30 00:00:00", "2026-12-31 00:00:00", "2027-01-29 00:00:00"]);
    check("0 0 15W * ?", &["2026-12-15 00:00:00", "2027-01-15 00:00:00", "2027-02-15 00:00:00"]);
    check("0 0 1W 5 ?", &["2027-05-03 00:00:00", "2028-05-01 00:00:00", "2029-05-01 00:00:00"]);
    check("0 0 ? * 5L", &["2026-11-27 00:00:00", "2026-12-25 00:00:00"]);
    check("0 0 ? * MON#1", &["2026-12-07 00:00:00", "2027-01-04 00:00:00"]);
    check("0 0 ? * 0#5", &["2026-11-29 00:00:00", "2027-01-31 00:00:00"]);
}

#[test]
fn a_bad_field_is_named_with_value_and_rule() {
    for (line, words) in [
        ("60 * * * * *", "field `second` is `60`: expected `*`, numbers 0 to 59"),
        ("* 61 * * * *", "field `minute` is `61`"),
        ("* * 24 * * *", "field `hour` is `24`: expected `*`, numbers 0 to 23"),
        ("* * * 0 * *", "field `day` is `0`"),
        ("* * * 32 * *", "field `day` is `32`"),
        ("* * * * 13 *", "field `month` is `13`"),
        ("* * * * FOO *", "field `month` is `FOO`"),
        ("* * * * * 8", "field `weekday` is `8`"),
        ("* * * * * MON-XYZ", "field `weekday` is `MON-XYZ`"),
        ("* * * * * L", "field `weekday` is `L`"),
        ("* * * * * 1#6", "field `weekday` is `1#6`"),
        ("* * * * * 5-1", "field `weekday` is `5-1`"),
        ("* * * 32W * *", "field `day` is `32W`"),
        ("* * * * * * 1969", "field `year` is `1969`"),
        ("* * * * * * 2100", "field `year` is `2100`: expected `*`, numbers 1970 to 2099"),
        ("*/0 * * * * *", "field `second` is `*/0`"),
        ("** * * * * *", "field `second` is `**`"),
        ("5-1 * * * * *", "field `second` is `5-1`"),
        ("1,,2 * * * * *", "field `second` is `1,,2`"),
        ("-1 * * * * *", "field `second` is `-1`"),
        ("99999999999 * * * * *", "field `second` is `99999999999`"),
        ("é * * * * *", "field `second` is `é`"),
        ("* * ? * * *", "field `hour` is `?`"),
    ] {
        let message = refused(line);
        assert!(message.contains(words), "{line}: {message}");
    }
    assert!(refused(&"1,".repeat(501)).contains("has 1002 bytes"));
    assert!(
        CronSchedule::parse("* * * * *", "Berlin").unwrap_err().to_string().contains("`Berlin`")
    );
}

#[test]
fn an_impossible_date_never_ticks() {
    for line in ["0 0 30 2 *", "0 0 0 31 4,6,9,11 ? *", "0 0 0 29 2 ? 2027"] {
        let schedule = CronSchedule::parse(line, "Europe/Berlin").unwrap();
        assert_eq!(schedule.next(Timestamp::UNIX_EPOCH), None, "{line}");
        assert!(!schedule.ever_ticks());
    }
    assert_eq!(ticks("0 0 0 1 1 * 2020", "UTC", "2026-01-01T00:00:00Z", 1), [""; 0]);
}

/// New York 2026: 02:00 becomes 03:00 on March 8, 02:00 becomes 01:00 on November 1.
#[test]
fn a_fixed_hour_that_is_skipped_ticks_at_the_jump() {
    let days = ticks("30 2 * * *", "America/New_York", "2026-03-07T00:00:00Z", 3);
    assert_eq!(
        days,
        ["2026-03-07 02:30:00 -05:00", "2026-03-08 03:00:00 -04:00", "2026-03-09 02:30:00 -04:00"]
    );
    // Two skipped times and one at the jump itself are one tick.
    let days = ticks("0,30 2,3 * * *", "America/New_York", "2026-03-08T06:00:00Z", 2);
    assert_eq!(days, ["2026-03-08 03:00:00 -04:00", "2026-03-08 03:30:00 -04:00"]);
}

#[test]
fn a_fixed_hour_that_is_doubled_ticks_the_first_time() {
    let days = ticks("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2);
    assert_eq!(days, ["2026-11-01 01:30:00 -04:00", "2026-11-02 01:30:00 -05:00"]);
    // Asked in the middle of the second pass.
    let days = ticks("* * 1-2 * * *", "America/New_York", "2026-11-01T06:15:00Z", 1);
    assert_eq!(days, ["2026-11-01 02:00:00 -05:00"]);
}

#[test]
fn a_star_or_step_in_the_hour_follows_elapsed_time() {
    let hours = ticks("0 * * * *", "America/New_York", "2026-11-01T04:30:00Z", 4);
    assert_eq!(
        hours,
        [
            "2026-11-01 01:00:00 -04:00",
            "2026-11-01 01:00:00 -05:00",
            "2026-11-01 02:00:00 -05:00",
            "2026-11-01 03:00:00 -05:00"
        ]
    );
    let hours = ticks("0 */2 * * *", "America/New_York", "2026-03-08T03:00:00Z", 3);
    assert_eq!(
        hours,
        ["2026-03-08 00:00:00 -05:00", "2026-03-08 04:00:00 -04:00", "2026-03-08 06:00:00 -04:00"]
    );
}

#[test]
fn a_whole_day_that_a_zone_skips_ticks_at_the_jump() {
    let days = ticks("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3);
    assert_eq!(
        days,
        ["2011-12-29 12:00:00 -10:00", "2011-12-31 00:00:00 +14:00", "2011-12-31 12:00:00 +14:00"]
    );
}

/// Field texts with the set that they mean, made together so that the oracle does not parse.
fn field(min: i8, max: i8) -> impl Strategy<Value = (String, Vec<i8>)> {
    let all: Vec<i8> = (min..=max).collect();
    prop_oneof![
        2 => Just(("*".to_owned(), all)),
        2 => (min..=max).prop_map(|n| (n.to_string(), vec![n])),
        1 => (min..=max, min..=max).prop_map(|(a, b)| {
            let (a, b) = (a.min(b), a.max(b));
            (format!("{a}-{b}"), (a..=b).collect())
        }),
        1 => (min..=max, 1i8..=max).prop_map(move |(a, n)| {
            (format!("{a}/{n}"), (a..=max).step_by(usize::try_from(n).unwrap()).collect())
        }),
        1 => prop::collection::vec(min..=max, 1..4).prop_map(|list| {
            (list.iter().map(ToString::to_string).collect::<Vec<_>>().join(","), list)
        }),
    ]
}

/// Whole hours where something happens to the clocks, and some where nothing does.
const PLACES: [(&str, &str); 6] = [
    ("America/New_York", "2026-03-08T00:00:00Z"),
    ("America/New_York", "2026-10-31T22:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T05:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T05:00:00Z"),
    ("Europe/Berlin", "2026-03-28T20:00:00Z"),
    ("UTC", "2026-12-31T10:00:00Z"),
];
const SPAN_MINUTES: u64 = 4 * 24 * 60;

type Fields = [(String, Vec<i8>); 6];

fn fields() -> impl Strategy<Value = Fields> {
    // Seconds are mostly one number, so that ticks are minutes apart and a span holds few; dates
    // are mostly open, so that it holds some.
    let all = |min: i8, max: i8| Just(("*".to_owned(), (min..=max).collect::<Vec<_>>()));
    let second =
        prop_oneof![9 => (0i8..60).prop_map(|n| (n.to_string(), vec![n])), 1 => field(0, 59)];
    let night = (0i8..5, 0i8..5).prop_map(|(a, b)| {
        let (a, b) = (a.min(b), a.max(b));
        (format!("{a}-{b}"), (a..=b).collect::<Vec<_>>())
    });
    let hour = prop_oneof![1 => field(0, 23), 1 => night];
    let day = prop_oneof![2 => all(1, 31), 1 => field(1, 31)];
    let month = prop_oneof![5 => all(1, 12), 1 => field(1, 12)];
    let weekday = prop_oneof![2 => all(0, 6), 1 => field(0, 6)];
    (second, field(0, 59), hour, day, month, weekday)
        .prop_map(|(a, b, c, d, e, f)| [a, b, c, d, e, f])
}

fn fits(fields: &Fields, time: DateTime) -> bool {
    let [_, minute, hour, day, month, weekday] = fields;
    let on_day = day.1.contains(&time.day());
    let on_weekday = weekday.1.contains(&time.weekday().to_sunday_zero_offset());
    let date = match (day.0 == "*", weekday.0 == "*") {
        (true, true) => true,
        (false, true) => on_day,
        (true, false) => on_weekday,
        (false, false) => on_day || on_weekday,
    };
    date && minute.1.contains(&time.minute())
        && hour.1.contains(&time.hour())
        && month.1.contains(&time.month())
}

/// Every minute, one by one, and in it the expression's seconds: all ticks in the span after `start`,
/// which is a whole minute. (The places' offsets are whole minutes.)
fn oracle(fields: &Fields, zone: &TimeZone, start: Timestamp) -> Vec<Timestamp> {
    let elapsed = fields[2].0.contains(['*', '/']);
    let second = |s: i8| Duration::from_secs(s.unsigned_abs().into());
    let mut ticks = std::collections::BTreeSet::new();
    if elapsed {
        for minute in 0..=SPAN_MINUTES {
            let at = start + Duration::from_secs(60 * minute);
            if fits(fields, zone.to_datetime(at)) {
                ticks.extend(fields[0].1.iter().map(|s| at + second(*s)));
            }
        }
    } else {
        // Wall-clock times from well before the span to well after it, each once.
        let first = zone.to_datetime(start) - Duration::from_secs(4 * 3600);
        for minute in 0..SPAN_MINUTES + 8 * 60 {
            let time = first + Duration::from_secs(60 * minute);
            if fits(fields, time) {
                ticks.extend(fields[0].1.iter().map(|s| shown_first(zone, time + second(*s))));
            }
        }
    }
    let end = start + Duration::from_secs(60 * SPAN_MINUTES);
    ticks.into_iter().filter(|at| start < *at && *at <= end).collect()
}

/// When the clocks show a time first; for one that they skip, the first that they show after it.
fn shown_first(zone: &TimeZone, mut time: DateTime) -> Timestamp {
    let skipped = |time| {
        let shown = zone.to_ambiguous_timestamp(time).offset();
        matches!(shown, AmbiguousOffset::Gap { .. })
    };
    while skipped(time) {
        time += Duration::from_secs(1);
    }
    zone.to_ambiguous_timestamp(time).earlier().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The walk finds exactly the ticks that looking at every minute finds.
    #[test]
    fn the_walk_agrees_with_looking_at_every_minute(
        fields in fields(), place in 0..PLACES.len(), minutes in 0u64..600,
    ) {
        let (zone, start) = PLACES[place];
        let start = start.parse::<Timestamp>().unwrap() + Duration::from_secs(minutes * 60);
        let line = fields.iter().map(|f| f.0.as_str()).collect::<Vec<_>>().join(" ");
        let schedule = CronSchedule::parse(&line, zone).unwrap();
        let expected = oracle(&fields, &schedule.zone, start);
        let mut after = start;
        for tick in expected.into_iter().take(2_000) {
            prop_assert_eq!(schedule.next(after), Some(tick), "{} in {} after {}", line, zone, after);
            after = tick;
        }
        if after == start {
            let next = schedule.next(after);
            let end = start + Duration::from_secs(60 * SPAN_MINUTES);
            prop_assert!(next.is_none_or(|next| end < next), "{} in {}: {:?}", line, zone, next);
        }
    }

    /// Any text is parsed or refused, and the next tick is in the future.
    #[test]
    fn any_text_is_read_or_refused(
        text in r"([0-9*?,/#LW A-Z-]{1,6} ){4,6}[0-9*?,/#LWA-Z-]{1,6}", at in 0i64..4_000_000_000,
    ) {
        if let Ok(schedule) = CronSchedule::parse(&text, "America/New_York") {
            let after = Timestamp::from_second(at).unwrap();
            prop_assert!(schedule.next(after).is_none_or(|next| after < next), "{}", text);
        }
    }
}
