//! The stream of ended events: a table that the transaction which settles an event writes to.
//!
//! Numbers are taken from a counter's row, whose lock makes transactions that end events commit
//! one after the other: a reader that has seen a number has seen every lower one. A sequence of
//! the database gives numbers out before they are committed, and a reader would pass over those
//! that are committed late.

use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    EndedEvent, EndedEventBatch, EndedEventPosition, EndedEventReader, EndedEvents, QueueError,
};
use hanshu_core::{AsyncState, RequestId};
use sqlx::{AnyConnection, query, query_as, query_scalar};
use tokio::time;
use tracing::error;

use super::database::SqlDatabase;
use super::dialect::Dialect;
use super::error::DatabaseError;
use super::json_rows;
use crate::claim_token::ClaimToken;
use crate::redis::EndedStream;
use crate::stored::{StoredEventState, read_origin, unreadable};

/// Ended events that are kept for a reader that does not come; beyond it the oldest go unread.
/// With inputs of at most 128 KB.
const UNREAD_MAX: i64 = 1_000_000;

const TAKE_NUMBERS: &str = "
UPDATE counters SET value = value + $1 WHERE name = 'ended_events' RETURNING value";

/// Rows `[request id, claim, state, now, attempt's line, error, number]`, of events that are held:
/// writes the ends that END is about to make.
const RECORD_SQLITE: &str = "
INSERT INTO ended_events (seq, request_id, queue, version, revision, origin, accepted_at, ended_at,
  state, attempts, error, rerun_of, payload)
SELECT ended.value->>6, e.request_id, e.queue, e.version, e.revision, e.origin, e.accepted_at,
  ended.value->>3, ended.value->>2, e.attempts || (ended.value->>4), ended.value->>5, e.rerun_of,
  e.payload
FROM json_each($1) AS ended JOIN queue_events AS e ON e.request_id = ended.value->>0
WHERE e.claims = ended.value->>1 AND e.state = 'running'";

/// As for SQLite; the events are locked in the order of their ids.
const RECORD_POSTGRES: &str = "
WITH ended AS MATERIALIZED (
  SELECT value->>0 AS id, (value->>1)::bigint AS claim, value->>2 AS state,
    (value->>3)::bigint AS at, value->>4 AS line, value->>5 AS error, (value->>6)::bigint AS seq
  FROM json_array_elements($1::text::json)),
ours AS MATERIALIZED (
  SELECT e.request_id, e.queue, e.version, e.revision, e.origin, e.accepted_at, e.attempts,
    e.rerun_of, e.payload
  FROM queue_events AS e JOIN ended ON e.request_id = ended.id AND e.claims = ended.claim
  WHERE e.state = 'running' ORDER BY e.request_id FOR UPDATE OF e)
INSERT INTO ended_events (seq, request_id, queue, version, revision, origin, accepted_at, ended_at,
  state, attempts, error, rerun_of, payload)
SELECT ended.seq, ours.request_id, ours.queue, ours.version, ours.revision, ours.origin,
  ours.accepted_at, ended.at, ended.state, ours.attempts || ended.line, ended.error,
  ours.rerun_of, ours.payload
FROM ours JOIN ended ON ended.id = ours.request_id";

/// The end of an event that waits, cancelled now.
const RECORD_CANCELLED_SQLITE: &str = "
INSERT INTO ended_events (seq, request_id, queue, version, revision, origin, accepted_at, ended_at,
  state, attempts, error, rerun_of, payload)
SELECT CAST($1 AS BIGINT), request_id, queue, version, revision, origin, accepted_at,
  CAST($2 AS BIGINT), 'cancelled', attempts, NULL, rerun_of, payload
FROM queue_events WHERE request_id = $3 AND state IN ('queued', 'retrying')";

/// As for SQLite; the event is locked.
const RECORD_CANCELLED_POSTGRES: &str = "
INSERT INTO ended_events (seq, request_id, queue, version, revision, origin, accepted_at, ended_at,
  state, attempts, error, rerun_of, payload)
SELECT CAST($1 AS BIGINT), request_id, queue, version, revision, origin, accepted_at,
  CAST($2 AS BIGINT), 'cancelled', attempts, NULL, rerun_of, payload
FROM queue_events WHERE request_id = $3 AND state IN ('queued', 'retrying') FOR UPDATE";

/// Rows `[number, request id, queue, version, revision, origin, accepted, ended, state, attempts,
/// error, rerun of, offset, bytes]`, and all payloads one after the other.
const APPEND_SQLITE: &str = "
INSERT INTO ended_events (seq, request_id, queue, version, revision, origin, accepted_at, ended_at,
  state, attempts, error, rerun_of, payload)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7,
  value->>8, value->>9, value->>10, value->>11, substr($2, (value->>12) + 1, value->>13)
FROM json_each($1)
WHERE NOT EXISTS (SELECT 1 FROM ended_events AS known WHERE known.request_id = value->>1)";

const APPEND_POSTGRES: &str = "
INSERT INTO ended_events (seq, request_id, queue, version, revision, origin, accepted_at, ended_at,
  state, attempts, error, rerun_of, payload)
SELECT (value->>0)::bigint, value->>1, value->>2, value->>3, value->>4, value->>5,
  (value->>6)::bigint, (value->>7)::bigint, value->>8, value->>9, value->>10, value->>11,
  substring($2::bytea FROM (value->>12)::int + 1 FOR (value->>13)::int)
FROM json_array_elements($1::text::json)
WHERE NOT EXISTS (SELECT 1 FROM ended_events AS known WHERE known.request_id = value->>1)";

const READ: &str = "
SELECT seq, request_id, queue, version, revision, origin, accepted_at, ended_at, state, attempts,
  error, rerun_of, payload
FROM ended_events
WHERE seq > (SELECT position FROM ended_readers WHERE name = $1) ORDER BY seq LIMIT $2";

const CONFIRM: &str = "
UPDATE ended_readers SET position = $2 WHERE name = $1 AND position < $2";

/// What every reader has passed, and what is over the bound `$1`.
const TRIM: &str = "
DELETE FROM ended_events WHERE seq <= (SELECT MIN(position) FROM ended_readers)
  OR seq <= (SELECT value FROM counters WHERE name = 'ended_events') - $1";

/// Every statement of this file.
pub(super) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let Texts { record, record_cancelled, append } = texts(dialect);
    vec![TAKE_NUMBERS, record, record_cancelled, append, READ, CONFIRM, TRIM]
}

struct Texts {
    record: &'static str,
    record_cancelled: &'static str,
    append: &'static str,
}

fn texts(dialect: Dialect) -> Texts {
    match dialect {
        Dialect::Sqlite => Texts {
            record: RECORD_SQLITE,
            record_cancelled: RECORD_CANCELLED_SQLITE,
            append: APPEND_SQLITE,
        },
        Dialect::Postgres => Texts {
            record: RECORD_POSTGRES,
            record_cancelled: RECORD_CANCELLED_POSTGRES,
            append: APPEND_POSTGRES,
        },
    }
}

/// An end that is about to be written to its event.
#[derive(Clone, Copy, Debug)]
pub(super) struct EndToRecord<'a> {
    pub(super) claim: ClaimToken,
    pub(super) state: &'a str,
    pub(super) now_us: i64,
    /// The finished attempt's line; empty if there was none.
    pub(super) line: &'a str,
    pub(super) error: Option<&'a str>,
}

/// Writes the ends of events that are held by these claims, before the ends themselves; returns of
/// how many. The first statement of a transaction that ends events: the counter's lock comes
/// before those of events.
pub(super) async fn record(
    tx: &mut AnyConnection,
    dialect: Dialect,
    ends: &[EndToRecord<'_>],
) -> Result<u64, QueueError> {
    let first = take_numbers(tx, ends.len()).await?;
    let rows = (first..).zip(ends).map(|(number, end)| {
        let ClaimToken { request_id, claim } = end.claim;
        (request_id, claim, end.state, end.now_us, end.line, end.error, number)
    });
    let record = query(texts(dialect).record).bind(json_rows::encode(rows)?);
    Ok(record.execute(tx).await.map_err(DatabaseError::from)?.rows_affected())
}

/// Writes the end of an event that waits and is cancelled, before the end itself; false if no such
/// event waits. The first statement of its transaction, as for [`record`].
pub(super) async fn record_cancelled(
    tx: &mut AnyConnection,
    dialect: Dialect,
    request_id: &str,
    now_us: i64,
) -> Result<bool, QueueError> {
    let number = take_numbers(tx, 1).await?;
    let record = query(texts(dialect).record_cancelled).bind(number).bind(now_us).bind(request_id);
    let recorded = record.execute(tx).await.map_err(DatabaseError::from)?;
    Ok(recorded.rows_affected() == 1)
}

/// Locks the counter, for a transaction that will lock events before it ends one.
pub(super) async fn lock(tx: &mut AnyConnection) -> Result<(), QueueError> {
    take_numbers(tx, 0).await.map(drop)
}

/// Takes that many numbers; returns the first.
async fn take_numbers(tx: &mut AnyConnection, count: usize) -> Result<i64, QueueError> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let last: i64 =
        query_scalar(TAKE_NUMBERS).bind(count).fetch_one(tx).await.map_err(DatabaseError::from)?;
    Ok(last - count + 1)
}

/// An end that was written elsewhere (Redis), as it is stored here.
#[derive(Debug)]
pub(crate) struct ForeignEnd {
    pub(crate) request_id: String,
    pub(crate) queue: String,
    pub(crate) version: String,
    pub(crate) revision: String,
    pub(crate) origin: String,
    pub(crate) accepted_us: i64,
    pub(crate) ended_us: i64,
    pub(crate) state: String,
    pub(crate) attempts: String,
    pub(crate) error: Option<String>,
    pub(crate) rerun_of: Option<String>,
    pub(crate) payload: Vec<u8>,
}

/// The stream of ended events in a database.
#[derive(Clone, Debug)]
pub struct SqlEndedEvents {
    db: SqlDatabase,
    /// Where the queue writes ends, if not into the database.
    elsewhere: Option<EndedStream>,
}

row! {
    #[derive(Debug)]
    struct EndedEventRow {
        seq: i64,
        request_id: String,
        queue: String,
        version: String,
        revision: String,
        origin: String,
        accepted_at: i64,
        ended_at: i64,
        state: String,
        attempts: String,
        error: Option<String>,
        rerun_of: Option<String>,
        payload: Vec<u8>,
    }
}

impl SqlEndedEvents {
    /// How soon [`EndedEvents::changed`] returns: readers work at their own pace, in batches.
    const POLL: Duration = Duration::from_millis(250);

    /// The stream of that database, whose queue is there too.
    pub fn new(db: SqlDatabase) -> Self {
        Self { db, elsewhere: None }
    }

    /// The stream of that database, for a queue that writes its ends to `elsewhere`.
    pub fn fed_from(db: SqlDatabase, elsewhere: EndedStream) -> Self {
        Self { db, elsewhere: Some(elsewhere) }
    }

    /// Adds ends that were written elsewhere; what is here already is left as it is.
    async fn append(&self, ends: &[ForeignEnd]) -> Result<(), QueueError> {
        let work = async {
            let mut tx = self.db.begin().await?;
            let first = take_numbers(&mut tx, ends.len()).await?;
            let mut payloads = Vec::new();
            let mut rows = Vec::with_capacity(ends.len());
            for (number, end) in (first..).zip(ends) {
                rows.push(serde_json::json!([
                    number,
                    end.request_id,
                    end.queue,
                    end.version,
                    end.revision,
                    end.origin,
                    end.accepted_us,
                    end.ended_us,
                    end.state,
                    end.attempts,
                    end.error,
                    end.rerun_of,
                    payloads.len(),
                    end.payload.len()
                ]));
                payloads.extend_from_slice(&end.payload);
            }
            let rows = json_rows::encode(rows)?;
            let append = query(texts(self.db.dialect()).append).bind(rows).bind(payloads);
            append.execute(&mut *tx).await.map_err(DatabaseError::from)?;
            tx.commit().await.map_err(DatabaseError::from)?;
            Ok::<_, QueueError>(())
        };
        self.db.within(work).await
    }
}

#[async_trait]
impl EndedEvents for SqlEndedEvents {
    async fn read(
        &self,
        reader: EndedEventReader,
        max: usize,
    ) -> Result<EndedEventBatch, QueueError> {
        let rows = query_as(READ)
            .bind(reader.as_str())
            .bind(i64::try_from(max).unwrap_or(i64::MAX))
            .fetch_all(self.db.reader());
        let rows: Vec<EndedEventRow> =
            self.db.within(async { rows.await.map_err(DatabaseError::from) }).await?;
        let position = rows.last().map(|row| EndedEventPosition(row.seq));
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            match row.into_event() {
                Ok(event) => events.push(event),
                // It would keep every later one from its readers.
                Err(error) => error!(%error, "An ended event is passed over"),
            }
        }
        Ok(EndedEventBatch { events, position })
    }

    async fn confirm(
        &self,
        reader: EndedEventReader,
        position: EndedEventPosition,
    ) -> Result<(), QueueError> {
        let work = async {
            let mut tx = self.db.begin().await?;
            let confirm = query(CONFIRM).bind(reader.as_str()).bind(position.0);
            confirm.execute(&mut *tx).await?;
            query(TRIM).bind(UNREAD_MAX).execute(&mut *tx).await?;
            Ok::<_, DatabaseError>(tx.commit().await?)
        };
        Ok(self.db.within(work).await?)
    }

    async fn take_over(&self, max: usize) -> Result<usize, QueueError> {
        let Some(elsewhere) = &self.elsewhere else { return Ok(0) };
        let taken = elsewhere.read(max).await?;
        let count = taken.places.len();
        if count == 0 {
            return Ok(0);
        }
        self.append(&taken.ends).await?;
        elsewhere.remove(taken).await?;
        Ok(count)
    }

    async fn changed(&self, at_most: Duration) {
        time::sleep(at_most.min(Self::POLL)).await;
    }
}

impl EndedEventRow {
    fn into_event(self) -> Result<EndedEvent, QueueError> {
        let id = self.request_id.as_str();
        let request_id: RequestId = id.parse().map_err(|error| unreadable(id, error))?;
        let revision = self.revision.parse().map_err(|error| unreadable(id, error))?;
        let origin = read_origin(id, &self.origin)?;
        let state = StoredEventState {
            request_id,
            queue: self.queue,
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
        Ok(EndedEvent {
            position: EndedEventPosition(self.seq),
            state: AsyncState::try_from(state)?,
            revision,
            origin,
            input: self.payload.into(),
        })
    }
}
