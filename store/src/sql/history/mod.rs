//! The history of ended asynchronous events in a database.
//!
//! A page merges one range of an index for each state that it asks for, so that a page of rare
//! events costs as much as one of frequent ones. A search reads such pages and looks at each
//! event's texts, up to a bound.

mod record;
mod search;
mod statements;

use async_trait::async_trait;
use bytes::Bytes;
use hanshu_core::ports::{
    EndedEvent, HistoryBounds, HistoryCursor, HistoryEntry, HistoryPage, HistoryQuery,
    InvocationHistory, StoreError,
};
use hanshu_core::{AsyncState, InvocationState, RequestId, Timestamp};
use sqlx::{AnyConnection, query_as, query_scalar};

use super::database::SqlDatabase;
use super::dialect::Dialect;
use super::error::DatabaseError;
use super::row::RowContext;
use crate::stored::{StoredEventState, read_origin};
use statements as text;
pub(super) use statements::statements;

/// The history in a database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlHistory {
    db: SqlDatabase,
}

row! {
    #[derive(Debug)]
    struct HistoryRow {
        request_id: String,
        namespace: String,
        function: String,
        trigger: String,
        origin: String,
        version: String,
        state: String,
        accepted_at: i64,
        ended_at: i64,
        attempts: String,
        error: Option<String>,
        rerun_of: Option<String>,
    }
}

impl SqlHistory {
    /// The history of that database.
    pub fn new(db: SqlDatabase) -> Self {
        Self { db }
    }

    /// The newest events that match, texts aside, that ended before `before`; at most `limit`.
    async fn newest(
        connection: &mut AnyConnection,
        query: &HistoryQuery,
        before: Option<HistoryCursor>,
        limit: usize,
    ) -> Result<Vec<HistoryRow>, DatabaseError> {
        let mut rows = Vec::new();
        for state in InvocationState::ALL.into_iter().filter(|state| state.has_ended()) {
            if query.states.is_empty() || query.states.contains(&state) {
                rows.extend(newest_in_state(connection, query, state, before, limit).await?);
            }
        }
        rows.sort_by(|a, b| (b.ended_at, &b.request_id).cmp(&(a.ended_at, &a.request_id)));
        rows.truncate(limit);
        Ok(rows)
    }
}

async fn newest_in_state(
    connection: &mut AnyConnection,
    query: &HistoryQuery,
    state: InvocationState,
    before: Option<HistoryCursor>,
    limit: usize,
) -> Result<Vec<HistoryRow>, DatabaseError> {
    // Everything that ended before `to` is before this place: no id is smaller than no text.
    let to = query.to.map_or(i64::MAX, |to| to.as_microsecond());
    let (ended_at, id) = match before {
        Some(place) if place.ended_at.as_microsecond() < to => {
            (place.ended_at.as_microsecond(), place.request_id.to_string())
        }
        Some(_) | None => (to, String::new()),
    };
    let dialect = match connection.backend_name() {
        "SQLite" => Dialect::Sqlite,
        _ => Dialect::Postgres,
    };
    let statement = match (&query.function, &query.trigger) {
        (None, _) => text::PAGE_OF_NAMESPACE,
        (Some(_), None) => text::PAGE_OF_FUNCTION,
        (Some(_), Some(_)) => text::page_of_trigger(dialect),
    };
    let mut page = query_as(statement)
        .bind(query.namespace.as_str())
        .bind(state.as_str())
        .bind(ended_at)
        .bind(id)
        .bind(query.from.map_or(i64::MIN, |from| from.as_microsecond()))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    if let Some(function) = &query.function {
        page = page.bind(function.as_str());
        if let Some(trigger) = &query.trigger {
            page = page.bind(trigger.as_str());
        }
    }
    Ok(page.fetch_all(connection).await?)
}

#[async_trait]
impl InvocationHistory for SqlHistory {
    async fn record(&self, events: &[EndedEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        Ok(self.db.within(record::record(&self.db, events)).await?)
    }

    async fn page(&self, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        if let Some(wanted) = &query.text {
            return Ok(self.db.within(search::search(&self.db, query, wanted)).await?);
        }
        let limit = query.limit.max(1);
        let work = async {
            let mut connection = self.db.reader().acquire().await?;
            let mut rows =
                Self::newest(&mut connection, query, query.after, limit.saturating_add(1)).await?;
            let has_more = limit < rows.len();
            rows.truncate(limit);
            let events = rows.into_iter().map(HistoryRow::into_state);
            let events = events.collect::<Result<Vec<_>, DatabaseError>>()?;
            let next = events.last().filter(|_| has_more).and_then(place_of);
            Ok::<_, DatabaseError>(HistoryPage { events, next, searched_to: None })
        };
        Ok(self.db.within(work).await?)
    }

    async fn find(&self, request_id: RequestId) -> Result<Option<HistoryEntry>, StoreError> {
        let work = async {
            let row: Option<HistoryRow> = query_as(text::FIND)
                .bind(request_id.to_string())
                .fetch_optional(self.db.reader())
                .await?;
            row.map(HistoryRow::into_entry).transpose()
        };
        Ok(self.db.within(work).await?)
    }

    async fn input(&self, request_id: RequestId) -> Result<Option<Bytes>, StoreError> {
        let work = async {
            let payload: Option<Vec<u8>> = query_scalar(text::INPUT)
                .bind(request_id.to_string())
                .fetch_optional(self.db.reader())
                .await?;
            Ok::<_, DatabaseError>(payload.map(Bytes::from))
        };
        Ok(self.db.within(work).await?)
    }

    async fn collect(&self, bounds: &HistoryBounds, now: Timestamp) -> Result<u64, StoreError> {
        let inputs = record::collect_inputs(&self.db, bounds, now);
        inputs.await?;
        Ok(record::collect_events(&self.db, bounds, now).await?)
    }
}

/// Where an event stands in the history.
fn place_of(event: &AsyncState) -> Option<HistoryCursor> {
    Some(HistoryCursor { ended_at: event.ended_at?, request_id: event.request_id })
}

impl HistoryRow {
    fn into_entry(self) -> Result<HistoryEntry, DatabaseError> {
        let origin = read_origin(&self.request_id, &self.origin);
        let origin = origin.map_err(|error| DatabaseError::Row {
            table: "history",
            key: self.request_id.clone(),
            reason: error.to_string(),
        })?;
        Ok(HistoryEntry { origin, state: self.into_state()? })
    }

    fn into_state(self) -> Result<AsyncState, DatabaseError> {
        let row = RowContext::new("history", &self.request_id);
        let mut queue = format!("{}/{}", self.namespace, self.function);
        if !self.trigger.is_empty() {
            queue.push('/');
            queue.push_str(&self.trigger);
        }
        let state = StoredEventState {
            request_id: row.parse(&self.request_id)?,
            queue,
            version: self.version,
            origin: self.origin,
            state: self.state,
            attempts: self.attempts,
            begun: String::new(),
            accepted_us: self.accepted_at,
            ended_us: Some(self.ended_at),
            result: None,
            error: self.error,
            rerun_of: self.rerun_of,
        };
        AsyncState::try_from(state).map_err(|error| DatabaseError::Row {
            table: "history",
            key: self.request_id,
            reason: error.to_string(),
        })
    }
}
