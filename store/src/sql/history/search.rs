//! Events whose name, id or error contain a text: looked for among the newest first, up to a bound.

use std::time::Duration;

use hanshu_core::Timestamp;
use hanshu_core::ports::{HistoryCursor, HistoryPage, HistoryQuery};
use tokio::time::Instant;

use super::{HistoryRow, SqlHistory, place_of};
use crate::sql::database::SqlDatabase;
use crate::sql::error::DatabaseError;

/// Events looked at for one page.
const EVENTS_MAX: usize = 100_000;
/// Time spent on one page.
const TIME_MAX: Duration = Duration::from_secs(2);
/// Events read at once.
const BATCH: usize = 2_000;

/// A page of the events that contain the text.
pub(super) async fn search(
    db: &SqlDatabase,
    query: &HistoryQuery,
    wanted: &str,
) -> Result<HistoryPage, DatabaseError> {
    let (wanted, limit) = (wanted.to_lowercase(), query.limit.max(1));
    let mut connection = db.reader().acquire().await?;
    let (began, mut looked_at, mut place) = (Instant::now(), 0, query.after);
    let mut events = Vec::new();
    loop {
        let rows = SqlHistory::newest(&mut connection, query, place, BATCH).await?;
        let is_last = rows.len() < BATCH;
        looked_at += rows.len();
        for row in rows {
            let row_place = row.place()?;
            if contains(&row, &wanted) {
                if events.len() == limit {
                    // There is at least one more: the next page begins after the last one shown.
                    let next = events.last().and_then(place_of);
                    return Ok(HistoryPage { events, next, searched_to: None });
                }
                events.push(row.into_state()?);
            }
            place = Some(row_place);
        }
        if is_last {
            return Ok(HistoryPage { events, next: None, searched_to: None });
        }
        if EVENTS_MAX <= looked_at || TIME_MAX <= began.elapsed() {
            let searched_to = place.map(|place| place.ended_at);
            return Ok(HistoryPage { events, next: place, searched_to });
        }
    }
}

/// Whether the function's name, the request id, or the error's type or message contain the text,
/// which is in lower case.
fn contains(row: &HistoryRow, wanted: &str) -> bool {
    if row.function.to_lowercase().contains(wanted) || row.request_id.contains(wanted) {
        return true;
    }
    let Some(error) = &row.error else { return false };
    let Ok(error) = serde_json::from_str::<serde_json::Value>(error) else { return false };
    ["errorMessage", "errorType"].iter().any(|field| {
        let text = error.get(field).and_then(serde_json::Value::as_str);
        text.is_some_and(|text| text.to_lowercase().contains(wanted))
    })
}

impl HistoryRow {
    fn place(&self) -> Result<HistoryCursor, DatabaseError> {
        let row = super::RowContext::new("history", &self.request_id);
        let ended_at: Timestamp = row.time(self.ended_at)?;
        Ok(HistoryCursor { ended_at, request_id: row.parse(&self.request_id)? })
    }
}
