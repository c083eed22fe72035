//! What goes into the history, and what goes out of it: both in batches, so that the queue's own
//! transactions get their turn in between.

use hanshu_core::Timestamp;
use hanshu_core::ports::{EndedEvent, HistoryBounds};
use serde_json::json;
use sqlx::{query, query_as, query_scalar};

use super::statements as text;
use crate::sql::database::SqlDatabase;
use crate::sql::error::DatabaseError;
use crate::sql::row::to_json;
use crate::stored;

/// Rows dropped in one statement.
const DROP_MAX: i64 = 1_000;

row! {
    #[derive(Debug)]
    struct OldInputRow {
        ended_at: i64,
        bytes: i64,
    }
}

/// Keeps events and their inputs in one transaction.
pub(super) async fn record(db: &SqlDatabase, events: &[EndedEvent]) -> Result<(), DatabaseError> {
    let mut inputs = Vec::new();
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let state = &event.state;
        let mut attempts = String::new();
        for attempt in &state.attempts {
            attempts.push_str(&stored::finished_line(Some(attempt)).map_err(row_error)?);
        }
        let error =
            state.error.as_ref().map(stored::failure_json).transpose().map_err(row_error)?;
        rows.push(json!([
            state.request_id,
            state.function.namespace,
            state.function.name,
            state.trigger.as_ref().map_or("", |trigger| trigger.as_str()),
            stored::origin_json(&event.origin).map_err(row_error)?,
            state.version.to_string(),
            state.state.as_str(),
            state.accepted_at.as_microsecond(),
            state.ended_at.map_or(0, |at| at.as_microsecond()),
            attempts,
            error,
            state.rerun_of,
            inputs.len(),
            event.input.len(),
        ]));
        inputs.extend_from_slice(&event.input);
    }
    let rows = to_json("history", &rows)?;
    let statements = text::record_statements(db.dialect());
    let mut tx = db.begin().await?;
    query(statements.events).bind(&rows).execute(&mut *tx).await?;
    query(statements.inputs).bind(&rows).bind(inputs).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

fn row_error(error: impl std::fmt::Display) -> DatabaseError {
    DatabaseError::Row { table: "history", key: "(new)".into(), reason: error.to_string() }
}

/// Drops events that are too old or too many; returns how many.
pub(super) async fn collect_events(
    db: &SqlDatabase,
    bounds: &HistoryBounds,
    now: Timestamp,
) -> Result<u64, DatabaseError> {
    let number = i64::try_from(bounds.events_max).unwrap_or(i64::MAX);
    let over: Option<i64> = db
        .within(async {
            let over = query_scalar(text::NEWEST_OVER_NUMBER).bind(number);
            Ok::<_, DatabaseError>(over.fetch_optional(db.reader()).await?)
        })
        .await?;
    let too_old = ended_before(now, bounds.age_max);
    let limit = over.map_or(too_old, |over| over.max(too_old));
    let mut dropped = 0;
    loop {
        let some = db
            .within(async {
                let drop = query(text::DROP_EVENTS).bind(limit).bind(DROP_MAX);
                Ok::<_, DatabaseError>(drop.execute(db.writer()).await?.rows_affected())
            })
            .await?;
        dropped += some;
        if some < DROP_MAX.unsigned_abs() {
            return Ok(dropped);
        }
    }
}

/// Drops inputs that are too old, or too many bytes together.
pub(super) async fn collect_inputs(
    db: &SqlDatabase,
    bounds: &HistoryBounds,
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let bytes_max = i64::try_from(bounds.input_bytes_max).unwrap_or(i64::MAX);
    let mut bytes: i64 = db
        .within(async {
            Ok::<_, DatabaseError>(query_scalar(text::INPUT_BYTES).fetch_one(db.reader()).await?)
        })
        .await?;
    let too_old = ended_before(now, bounds.input_age_max);
    loop {
        let limit = match bytes - bytes_max {
            surplus if 0 < surplus => oldest_with(db, surplus).await?.max(too_old),
            _ => too_old,
        };
        let dropped: Vec<i64> = db
            .within(async {
                let drop = query_scalar(text::DROP_INPUTS).bind(limit).bind(DROP_MAX);
                Ok::<_, DatabaseError>(drop.fetch_all(db.writer()).await?)
            })
            .await?;
        bytes -= dropped.iter().sum::<i64>();
        let is_partial = dropped.len() < usize::try_from(DROP_MAX).unwrap_or(usize::MAX);
        if dropped.is_empty() || (is_partial && bytes <= bytes_max) {
            return Ok(());
        }
    }
}

/// When the newest of the oldest inputs ended that have so many bytes together, or of the first
/// [`DROP_MAX`].
async fn oldest_with(db: &SqlDatabase, bytes: i64) -> Result<i64, DatabaseError> {
    let oldest: Vec<OldInputRow> = db
        .within(async {
            let oldest = query_as(text::OLDEST_INPUTS).bind(DROP_MAX);
            Ok::<_, DatabaseError>(oldest.fetch_all(db.reader()).await?)
        })
        .await?;
    let (mut missing, mut ended_at) = (bytes, i64::MIN);
    for input in oldest {
        if missing <= 0 {
            break;
        }
        (missing, ended_at) = (missing - input.bytes, input.ended_at);
    }
    Ok(ended_at)
}

/// Microseconds: what ended then, or before, is older than `age`.
fn ended_before(now: Timestamp, age: std::time::Duration) -> i64 {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    now.as_microsecond().saturating_sub(age).saturating_sub(1)
}
