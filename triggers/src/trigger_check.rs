//! Checks a trigger's settings before they are stored.

use hanshu_core::{TIMER_ARGUMENT_BYTES_MAX, Timestamp, TriggerSpec};

use crate::http::path_pattern::PathPattern;
use crate::schedule::{CronError, CronSchedule};
use crate::sources::is_url;
use crate::trigger_error::TriggerError;

/// Entries of a stream per event, at most (as SCF's Kafka trigger).
const BATCH_MAX: u32 = 10_000;
const STREAM_BYTES_MAX: usize = 512;
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// Checks a trigger's settings.
///
/// # Errors
/// [`TriggerError`] names the field, its value and the rule that it breaks.
pub fn check_trigger(spec: &TriggerSpec) -> Result<(), TriggerError> {
    match spec {
        TriggerSpec::Timer { cron, timezone, argument } => {
            let schedule = CronSchedule::parse(cron, timezone.as_deref().unwrap_or("UTC"))?;
            if !schedule.ever_ticks() {
                return Err(CronError::Never(cron.clone()).into());
            }
            if TIMER_ARGUMENT_BYTES_MAX < argument.len() {
                return Err(TriggerError::field("argument", argument, "at most 4096 bytes"));
            }
            Ok(())
        }
        TriggerSpec::Http { path, methods, .. } => {
            PathPattern::parse(path)?;
            methods.iter().try_for_each(|method| check_method(method))
        }
        TriggerSpec::Redis { url, stream, batch } => check_redis(url.expose(), stream, *batch),
    }
}

/// The next `n` ticks after `now`: what a deploy shows. Fewer if the schedule ends before.
///
/// # Errors
/// [`TriggerError::Cron`].
pub fn next_ticks(
    cron: &str,
    zone: &str,
    now: Timestamp,
    n: usize,
) -> Result<Vec<Timestamp>, TriggerError> {
    let schedule = CronSchedule::parse(cron, zone)?;
    let mut ticks = Vec::with_capacity(n.min(100));
    let mut after = now;
    while ticks.len() < n
        && let Some(tick) = schedule.next(after)
    {
        ticks.push(tick);
        after = tick;
    }
    Ok(ticks)
}

fn check_method(method: &str) -> Result<(), TriggerError> {
    if METHODS.contains(&method) {
        return Ok(());
    }
    let rule = "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS; leave `methods` out for any";
    Err(TriggerError::field("methods", method, rule))
}

fn check_redis(url: &str, stream: &str, batch: u32) -> Result<(), TriggerError> {
    if !is_url(url) {
        let rule = "`redis://[user:password@]host[:port][/database]` (TLS is not supported yet)";
        // The value may contain a password and is left out of the message.
        return Err(TriggerError::field("url", "***", rule));
    }
    if stream.is_empty() || STREAM_BYTES_MAX < stream.len() || stream.contains('\0') {
        return Err(TriggerError::field("stream", stream, "a key of 1 to 512 bytes without NUL"));
    }
    if !(1..=BATCH_MAX).contains(&batch) {
        return Err(TriggerError::field("batch", &batch.to_string(), "a number from 1 to 10000"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hanshu_core::{HttpAuth, Secret};

    use super::*;

    fn timer(cron: &str, zone: Option<&str>, argument: &str) -> TriggerSpec {
        TriggerSpec::Timer {
            cron: cron.into(),
            timezone: zone.map(Into::into),
            argument: argument.into(),
        }
    }

    fn http(path: &str, methods: &[&str]) -> TriggerSpec {
        TriggerSpec::Http {
            path: path.into(),
            methods: methods.iter().map(ToString::to_string).collect(),
            auth: HttpAuth::None,
            key: None,
        }
    }

    fn redis(url: &str, stream: &str, batch: u32) -> TriggerSpec {
        TriggerSpec::Redis { url: Secret::new(url), stream: stream.into(), batch }
    }

    #[test]
    fn good_triggers_pass() {
        for good in [
            timer("*/5 * * * * * *", Some("Asia/Shanghai"), "text"),
            timer("*/5 * * * *", None, &"x".repeat(4096)),
            http("/hello/{name}", &["GET", "POST"]),
            http("/", &[]),
            redis("redis://:secret@localhost:6379/2", "orders", 10_000),
        ] {
            assert_eq!(check_trigger(&good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn bad_triggers_are_refused_with_field_value_and_rule() {
        for (bad, words) in [
            (timer("61 * * * * * *", None, ""), "cron field `second` is `61`: expected"),
            (timer("0 0 30 2 *", None, ""), "`0 0 30 2 *` never ticks"),
            (timer("* * * * *", Some("Mars/Base"), ""), "timezone `Mars/Base` is not known"),
            (timer("* * * * *", None, &"x".repeat(4097)), "expected at most 4096 bytes"),
            (http("hello", &[]), "`path` is `hello`: expected"),
            (http("/hello", &["get"]), "`methods` is `get`: expected"),
            (redis("http://localhost", "orders", 1), "`url` is `***`: expected `redis://"),
            (redis("rediss://localhost", "orders", 1), "TLS is not supported"),
            (redis("redis://localhost", "", 1), "`stream` is ``: expected"),
            (redis("redis://localhost", "orders", 0), "`batch` is `0`: expected"),
            (redis("redis://localhost", "orders", 10_001), "`batch` is `10001`"),
        ] {
            let message = check_trigger(&bad).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_deploy_shows_the_next_three_ticks() {
        let now = "2026-11-22T18:00:00Z".parse().unwrap();
        let ticks = next_ticks("0 9 * * MON", "Asia/Shanghai", now, 3).unwrap();
        let text: Vec<_> = ticks.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["2026-11-23T01:00:00Z", "2026-11-30T01:00:00Z", "2026-12-07T01:00:00Z"]);
        let past = next_ticks("0 0 0 1 1 * 2020", "UTC", now, 3).unwrap();
        assert!(past.is_empty());
    }
}
