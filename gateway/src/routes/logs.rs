//! A function's log, page by page.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use hanshu_api::wire::{LogLineView, LogPageView, LogParams};
use hanshu_core::ports::{JournalError, LogCursor, LogQuery};
use hanshu_core::{FunctionId, FunctionName, PermissionTarget, Timestamp};

use crate::extract::{PathParam, QueryParams};
use crate::middleware::Caller;
use crate::problem::Problem;
use crate::routes::functions::no_function;
use crate::state::Gateway;

/// Entries of a page whose request names no limit.
const LIMIT_DEFAULT: usize = 1_000;
/// Entries of a page, at most.
const LIMIT_MAX: usize = 10_000;
/// Seconds that a request may wait for lines.
pub(crate) const WAIT_MAX_S: u64 = 60;

/// A page of a function's log. Without `since` and `after` it is the newest.
pub(crate) async fn read(
    State(gateway): State<Gateway>,
    caller: Caller,
    PathParam(name): PathParam<FunctionName>,
    QueryParams(params): QueryParams<LogParams>,
) -> Result<Json<LogPageView>, Problem> {
    let function = FunctionId { namespace: params.namespace, name };
    caller.check(PermissionTarget::Function(&function))?;
    let now = gateway.clock.now();
    let known = gateway.controller.catalog().snapshot().function(&function).is_some();
    // A function that is gone writes nothing more.
    let wait = if known { params.wait.unwrap_or(0).min(WAIT_MAX_S) } else { 0 };
    let query = LogQuery {
        function,
        request_id: params.request_id,
        since: params.since.map(|text| time_param("since", &text, now)).transpose()?,
        after: params.after.map(LogCursor),
        limit: params.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX),
        wait: Duration::from_secs(wait),
    };
    if query.after.is_none() {
        // Lines are written a moment after their response: a caller who asks at once must see them.
        gateway.journal.flush().await?;
    }
    let page = gateway.journal.read(&query).await.map_err(|error| match error {
        JournalError::ForeignCursor(cursor) => {
            Problem::value("after", cursor, "the `next` of the page before")
        }
        JournalError::Failed(_) => error.into(),
    })?;
    // What it has left can still be read.
    if page.lines.is_empty() && !known {
        return Err(no_function(&query.function));
    }
    let lines = page.lines.into_iter().map(|line| LogLineView {
        time: line.time,
        request_id: line.request_id,
        from: line.from,
        text: line.text,
    });
    Ok(Json(LogPageView { lines: lines.collect(), next: page.next.0 }))
}

/// The time that a parameter says.
pub(super) fn time_param(name: &str, text: &str, now: Timestamp) -> Result<Timestamp, Problem> {
    let age = || {
        let unit = text.chars().last()?;
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        now.checked_sub(Duration::from_secs(number.checked_mul(seconds)?)).ok()
    };
    let rule =
        "RFC 3339 such as `2026-01-31T12:00:00Z`, or an age such as `90s`, `10m`, `2h`, `1d`";
    text.parse().ok().or_else(age).ok_or_else(|| Problem::value(name, text, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_an_age() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let at = |text| time_param("since", text, now).map(|time| time.to_string());
        assert_eq!(at("10m").unwrap(), "2026-01-31T11:50:00Z");
        assert_eq!(at("1d").unwrap(), "2026-01-30T12:00:00Z");
        assert_eq!(at("2026-01-01T08:00:00+08:00").unwrap(), "2026-01-01T00:00:00Z");
        for bad in ["", "10", "m", "-1m", "10y", "99999999999999999999d", "18446744073709551615d"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
