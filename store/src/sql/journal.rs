//! The journal on SQL, for several nodes: the same bounded buffer, written in batches.

use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{InvocationJournal, JournalError, LogCursor, LogPage, LogQuery};
use hanshu_core::{ErrorCause, InvocationRecord, LogBatch, RequestId, Timestamp};
use sqlx::{AnyConnection, query, query_as, query_scalar};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::database::SqlDatabase;
use super::dialect::Dialect;
use super::error::DatabaseError;
use super::row::RowContext;
use crate::journal::{
    DroppedEntries, EntrySink, JournalBuffer, JournalEntry, JournalEntryKind, JournalWriter,
    buffer, render_page,
};
use crate::stored::StoredInvocationRecord;

const TAKE_NUMBERS: &str = "
UPDATE counters SET value = value + $1 WHERE name = 'journal' RETURNING value";

const END: &str = "
SELECT value FROM counters WHERE name = 'journal'";

const FIND: &str = "
SELECT body FROM journal WHERE request_id = $1 AND kind = 2 ORDER BY seq";

const FUNCTION_FORWARD: &str = "
SELECT seq, kind, body FROM journal
WHERE namespace = $1 AND function = $2 AND seq > $3 AND time >= $4 ORDER BY seq LIMIT $5";

const FUNCTION_NEWEST: &str = "
SELECT seq, kind, body FROM journal
WHERE namespace = $1 AND function = $2 AND seq > $3 AND time >= $4 ORDER BY seq DESC LIMIT $5";

const REQUEST_FORWARD: &str = "
SELECT seq, kind, body FROM journal
WHERE namespace = $1 AND function = $2 AND seq > $3 AND time >= $4 AND request_id = $6
ORDER BY seq LIMIT $5";

const REQUEST_NEWEST: &str = "
SELECT seq, kind, body FROM journal
WHERE namespace = $1 AND function = $2 AND seq > $3 AND time >= $4 AND request_id = $6
ORDER BY seq DESC LIMIT $5";

/// A part of them at a time: one statement must not hold the writer, or run into its deadline.
const TRIM_BY_AGE: &str = "
DELETE FROM journal WHERE seq IN
  (SELECT seq FROM journal WHERE time < $1 ORDER BY time LIMIT 2000)";

const TRIM_BY_NUMBER: &str = "
DELETE FROM journal WHERE seq IN
  (SELECT seq FROM journal WHERE seq <= $1 ORDER BY seq LIMIT 2000)";

const STATEMENTS: &[&str] = &[
    TAKE_NUMBERS,
    END,
    FIND,
    FUNCTION_FORWARD,
    FUNCTION_NEWEST,
    REQUEST_FORWARD,
    REQUEST_NEWEST,
    TRIM_BY_AGE,
    TRIM_BY_NUMBER,
];

/// How often a waiting reader looks for what other nodes wrote.
const POLL: Duration = Duration::from_millis(500);

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlJournalOptions {
    /// Entries: the oldest go first when `collect` is called.
    pub entries_max: u64,
    /// What is older goes when `collect` is called.
    pub age_max: Duration,
}

/// The journal in a database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlJournal {
    db: SqlDatabase,
    options: SqlJournalOptions,
    buffer: JournalBuffer,
    /// Counts this process' writes, for readers that wait for one.
    changed: watch::Sender<u64>,
}

/// Writes batches of entries into the table.
#[derive(Debug)]
struct BatchInserter {
    db: SqlDatabase,
    changed: watch::Sender<u64>,
}

row! {
    #[derive(Debug)]
    struct EntryRow {
        seq: i64,
        kind: i64,
        body: String,
    }
}

/// An entry and its number.
#[derive(Debug)]
struct NumberedEntry {
    seq: i64,
    entry: JournalEntry,
}

/// Where a page starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageStart {
    /// With the first entry after this number.
    After(i64),
    /// So that it ends with the newest entry.
    Newest,
}

impl Default for SqlJournalOptions {
    fn default() -> Self {
        Self { entries_max: 2_000_000, age_max: Duration::from_secs(7 * 24 * 3600) }
    }
}

pub(super) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let mut all = STATEMENTS.to_vec();
    all.push(insert_batch(dialect));
    all
}

/// Rows as one JSON array of arrays: one statement and one parameter, however many there are.
fn insert_batch(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "INSERT INTO journal (seq, namespace, function, request_id, time, kind, body)
             SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),
               json_extract(value, '$[2]'), json_extract(value, '$[3]'),
               json_extract(value, '$[4]'), json_extract(value, '$[5]'),
               json_extract(value, '$[6]')
             FROM json_each($1)"
        }
        Dialect::Postgres => {
            "INSERT INTO journal (seq, namespace, function, request_id, time, kind, body)
             SELECT CAST(row->>0 AS BIGINT), row->>1, row->>2, row->>3,
               CAST(row->>4 AS BIGINT), CAST(row->>5 AS BIGINT), row->>6
             FROM json_array_elements(CAST(CAST($1 AS TEXT) AS JSON)) AS rows(row)"
        }
    }
}

impl SqlJournal {
    /// The journal in that database. Nothing is written until the writer runs.
    pub fn new(db: SqlDatabase, options: SqlJournalOptions) -> (Self, JournalWriter) {
        let changed = watch::Sender::new(0);
        let sink = BatchInserter { db: db.clone(), changed: changed.clone() };
        let (buffer, writer) = buffer(Box::new(sink));
        (Self { db, options, buffer, changed }, writer)
    }

    /// What was lost since the start.
    pub fn dropped(&self) -> DroppedEntries {
        self.buffer.dropped()
    }

    async fn page(&self, wanted: &LogQuery) -> Result<LogPage, JournalError> {
        let after = wanted.after.as_ref().map(parse).transpose()?;
        let start = match (after, wanted.since) {
            (Some(after), _) => PageStart::After(after),
            (None, Some(_)) => PageStart::After(0),
            (None, None) => PageStart::Newest,
        };
        self.db
            .within(async {
                let mut tx = self.db.begin_snapshot().await?;
                let end = query_scalar(END).fetch_one(&mut *tx).await;
                let end: i64 = end.map_err(DatabaseError::from)?;
                let entries = select_entries(&mut tx, wanted, start).await?;
                tx.commit().await.map_err(DatabaseError::from)?;
                let is_full = start != PageStart::Newest && wanted.limit <= entries.len();
                let last = entries.last().map(|last| last.seq).filter(|_| is_full);
                let next = LogCursor(last.unwrap_or(end.max(after.unwrap_or(0))).to_string());
                Ok(render_page(entries.iter().map(|numbered| &numbered.entry), next))
            })
            .await
    }

    async fn trim(&self, statement: &'static str, below: i64) -> Result<u64, DatabaseError> {
        let mut trimmed = 0;
        loop {
            let work = async {
                let done = query(statement).bind(below).execute(self.db.writer()).await?;
                Ok::<_, DatabaseError>(done.rows_affected())
            };
            match self.db.within(work).await? {
                0 => return Ok(trimmed),
                rows => trimmed += rows,
            }
        }
    }
}

#[async_trait]
impl InvocationJournal for SqlJournal {
    fn record(&self, record: InvocationRecord) {
        self.buffer.push(JournalEntry::Record(record));
    }

    fn log(&self, batch: LogBatch) {
        self.buffer.push(JournalEntry::Log(batch));
    }

    async fn flush(&self) -> Result<(), JournalError> {
        self.buffer.flush().await
    }

    async fn find(&self, request_id: RequestId) -> Result<Vec<InvocationRecord>, JournalError> {
        let key = request_id.to_string();
        let work = async {
            let bodies: Vec<String> =
                query_scalar(FIND).bind(&key).fetch_all(self.db.reader()).await?;
            let row = RowContext::new("journal", &key);
            let records = bodies.iter().map(|body| {
                let record: StoredInvocationRecord<'_> = row.json(body)?;
                Ok(record.into())
            });
            records.collect::<Result<Vec<_>, DatabaseError>>()
        };
        let mut found: Vec<InvocationRecord> = self.db.within(work).await?;
        found.sort_by_key(|record| (record.attempt, record.started_at));
        Ok(found)
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage, JournalError> {
        let deadline = Instant::now() + query.wait;
        let mut changed = self.changed.subscribe();
        let mut query = query.clone();
        loop {
            changed.mark_unchanged();
            let page = self.page(&query).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !page.lines.is_empty() || left.is_zero() {
                return Ok(page);
            }
            query.after = Some(page.next);
            // Either way the next look decides.
            let _ = timeout(POLL.min(left), changed.changed()).await;
        }
    }

    async fn collect(&self, now: Timestamp) -> Result<u64, JournalError> {
        let before = now.checked_sub(self.options.age_max).unwrap_or(Timestamp::MIN);
        let by_age = self.trim(TRIM_BY_AGE, before.as_microsecond()).await?;
        let end = async { Ok(query_scalar::<_, i64>(END).fetch_one(self.db.reader()).await?) };
        let end: i64 = self.db.within::<_, DatabaseError>(end).await?;
        let kept = i64::try_from(self.options.entries_max).unwrap_or(i64::MAX);
        let by_number = self.trim(TRIM_BY_NUMBER, end.saturating_sub(kept)).await?;
        Ok(by_age + by_number)
    }
}

#[async_trait]
impl EntrySink for BatchInserter {
    async fn write(&mut self, batch: Vec<JournalEntry>) -> Result<(), JournalError> {
        let count = i64::try_from(batch.len()).unwrap_or(i64::MAX);
        let work = async {
            let mut tx = self.db.begin().await?;
            let last: i64 = query_scalar(TAKE_NUMBERS)
                .bind(count)
                .fetch_one(&mut *tx)
                .await
                .map_err(DatabaseError::from)?;
            let rows = encode(&batch, last - count)?;
            let insert = query(insert_batch(self.db.dialect())).bind(rows);
            insert.execute(&mut *tx).await.map_err(DatabaseError::from)?;
            tx.commit().await.map_err(DatabaseError::from)?;
            Ok::<_, JournalError>(())
        };
        self.db.within(work).await?;
        self.changed.send_modify(|count| *count += 1);
        Ok(())
    }
}

fn encode(batch: &[JournalEntry], before: i64) -> Result<String, JournalError> {
    let rows = batch.iter().zip(before + 1..).map(|(entry, seq)| {
        let function = entry.function();
        let (time, kind) = (entry.time().as_microsecond(), entry.kind().number());
        let row = serde_json::json!([
            seq,
            function.namespace,
            function.name,
            entry.request_id(),
            time,
            kind,
            entry.encode()?,
        ]);
        Ok(row)
    });
    let rows = rows.collect::<Result<Vec<_>, JournalError>>()?;
    serde_json::to_string(&rows).map_err(|error| JournalError::Failed(ErrorCause::new(error)))
}

/// Entries in order of writing.
async fn select_entries(
    tx: &mut AnyConnection,
    wanted: &LogQuery,
    start: PageStart,
) -> Result<Vec<NumberedEntry>, JournalError> {
    let (statement, after) = match (start, wanted.request_id.is_some()) {
        (PageStart::After(after), false) => (FUNCTION_FORWARD, after),
        (PageStart::Newest, false) => (FUNCTION_NEWEST, 0),
        (PageStart::After(after), true) => (REQUEST_FORWARD, after),
        (PageStart::Newest, true) => (REQUEST_NEWEST, 0),
    };
    let since = wanted.since.map_or(i64::MIN, |since| since.as_microsecond());
    let mut select = query_as(statement)
        .bind(wanted.function.namespace.as_str())
        .bind(wanted.function.name.as_str())
        .bind(after)
        .bind(since)
        .bind(i64::try_from(wanted.limit).unwrap_or(i64::MAX));
    if let Some(request_id) = wanted.request_id {
        select = select.bind(request_id.to_string());
    }
    let rows: Vec<EntryRow> = select.fetch_all(tx).await.map_err(DatabaseError::from)?;
    let decoded = rows.iter().filter_map(|EntryRow { seq, kind, body }| {
        let kind = JournalEntryKind::of_number(*kind)?;
        let entry = JournalEntry::decode(kind, body.as_bytes());
        Some(entry.map(|entry| NumberedEntry { seq: *seq, entry }))
    });
    let mut entries = decoded.collect::<Result<Vec<_>, JournalError>>()?;
    if start == PageStart::Newest {
        entries.reverse();
    }
    Ok(entries)
}

fn parse(cursor: &LogCursor) -> Result<i64, JournalError> {
    cursor.0.parse().map_err(|_| JournalError::ForeignCursor(cursor.0.clone()))
}
