//! Event queues in the database: one row for each event, with its state. The embedded default.

mod batch;
mod batch_statements;
mod commands;
mod group_commit;
mod rows;
mod source;
mod statements;
mod transactions;
mod writers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    CancelOutcome, EventQueue, EventSource, NewEvent, PushOutcome, QueueError, QueueName,
    QueueStats, ReadyQueues,
};
use hanshu_core::{AsyncState, Clock, Digest, RequestId, Timestamp};
use sqlx::{query, query_as, query_scalar};
use tokio_util::task::TaskTracker;

use self::commands::QueueCommand;
use self::rows::{EventStateRow, QueueCountRow, ReadyQueueRow, WaitingCountRow};
use self::source::SqlEventSource;
use self::statements as text;
use self::transactions::CancelCommand;
use self::writers::QueueWriters;
use crate::sql::database::SqlDatabase;
use crate::sql::dialect::Dialect;
use crate::sql::error::DatabaseError;
use crate::stored::{self, unreadable};

/// Queues in an SQLite or PostgreSQL database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlQueue(Arc<QueueWriters>);

/// Every statement of the queues on that database.
pub(super) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let mut all = text::statements(dialect);
    all.extend(batch_statements::statements(dialect));
    all
}

impl SqlQueue {
    /// How often `changed` looks for what another process pushed, where there may be one.
    const POLL: Duration = Duration::from_millis(200);
    /// Ended events dropped in one statement, so that pushes get their turn in between.
    const COLLECT_MAX: i64 = 500;

    /// The queues of that database. Their writer runs on `tasks` until [`SqlQueue::close`], or
    /// until this and all its clones and sources are dropped.
    pub fn start(db: SqlDatabase, clock: Arc<dyn Clock>, tasks: &TaskTracker) -> Self {
        Self(Arc::new(QueueWriters::start(db, clock, tasks)))
    }

    /// Ends all holds, so that what an earlier process held can be claimed at once. For the only
    /// process on this database, before it claims. Returns how many there were.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    pub async fn release_all(&self) -> Result<u64, QueueError> {
        let db = self.db();
        let released = query(text::RELEASE).execute(db.writer());
        let released = db.within(async { released.await.map_err(DatabaseError::from) }).await?;
        Ok(released.rows_affected())
    }

    fn db(&self) -> &SqlDatabase {
        self.0.db()
    }
}

#[async_trait]
impl EventQueue for SqlQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        self.0.run(event, QueueCommand::Push).await
    }

    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError> {
        let now = self.0.clock().now().as_microsecond();
        let limit = i64::try_from(max).unwrap_or(i64::MAX).max(1);
        let firsts = query_as(text::READY).bind(limit).fetch_all(self.db().reader());
        let firsts: Vec<ReadyQueueRow> =
            self.db().within(async { firsts.await.map_err(DatabaseError::from) }).await?;
        let next_due = match firsts.first() {
            Some(first) if now < first.moment => Some(stored::time(first.moment)?),
            Some(_) | None => None,
        };
        let due = firsts.into_iter().take_while(|first| first.moment <= now).take(max);
        let queues = due.map(|first| queue_name(&first.queue)).collect::<Result<_, _>>()?;
        Ok(ReadyQueues { queues, next_due })
    }

    async fn changed(&self, at_most: Duration) {
        let at_most = match self.db().dialect() {
            Dialect::Sqlite => at_most,
            Dialect::Postgres => at_most.min(Self::POLL),
        };
        self.0.signal().wait(at_most).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        Arc::new(SqlEventSource::new(Arc::clone(&self.0), queue.clone()))
    }

    async fn state(&self, request_id: RequestId) -> Result<Option<AsyncState>, QueueError> {
        let row =
            query_as(text::STATE).bind(request_id.to_string()).fetch_optional(self.db().reader());
        let row: Option<EventStateRow> =
            self.db().within(async { row.await.map_err(DatabaseError::from) }).await?;
        row.map(|row| row.into_stored(request_id).try_into()).transpose()
    }

    async fn cancel(&self, request_id: RequestId) -> Result<CancelOutcome, QueueError> {
        let cancel = CancelCommand { request_id, now: self.0.clock().now() };
        self.0.run(cancel, QueueCommand::Cancel).await
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let counts = self.db().within(async {
            let mut tx = self.db().begin_snapshot().await?;
            let waiting: Vec<WaitingCountRow> =
                query_as(text::COUNT_WAITING).fetch_all(&mut *tx).await?;
            let held: Vec<QueueCountRow> = query_as(text::COUNT_HELD).fetch_all(&mut *tx).await?;
            let dead_lettered: Vec<QueueCountRow> =
                query_as(text::COUNT_DEAD_LETTERED).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            Ok::<_, DatabaseError>((waiting, held, dead_lettered))
        });
        let (waiting, held, dead_lettered) = counts.await?;
        let mut all = BTreeMap::new();
        for row in waiting {
            let stats = stats_of(&mut all, row.queue)?;
            stats.waiting = u64::try_from(row.events).unwrap_or(0);
            stats.oldest = row.oldest.map(stored::time).transpose()?;
        }
        for row in held {
            stats_of(&mut all, row.queue)?.running = u64::try_from(row.events).unwrap_or(0);
        }
        for row in dead_lettered {
            stats_of(&mut all, row.queue)?.dead_lettered = u64::try_from(row.events).unwrap_or(0);
        }
        Ok(all.into_values().collect())
    }

    async fn collect(&self, ended_before: Timestamp) -> Result<u64, QueueError> {
        let db = self.db();
        let collect = text::collects(db.dialect());
        let mut dropped = 0;
        loop {
            let some = query(collect.events)
                .bind(ended_before.as_microsecond())
                .bind(Self::COLLECT_MAX)
                .execute(db.writer());
            let some = db.within(async { some.await.map_err(DatabaseError::from) }).await?;
            dropped += some.rows_affected();
            if some.rows_affected() < Self::COLLECT_MAX.unsigned_abs() {
                break;
            }
        }
        let empty = query(collect.empty_queues).execute(db.writer());
        db.within(async { empty.await.map_err(DatabaseError::from) }).await?;
        Ok(dropped)
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        let pins = query_scalar(text::PINNED).fetch_all(self.db().reader());
        let pins: Vec<String> =
            self.db().within(async { pins.await.map_err(DatabaseError::from) }).await?;
        pins.iter().map(|text| text.parse().map_err(|error| unreadable(text, error))).collect()
    }

    async fn durability_warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn close(&self) {
        self.0.close();
    }
}

fn stats_of(
    all: &mut BTreeMap<String, QueueStats>,
    name: String,
) -> Result<&mut QueueStats, QueueError> {
    let queue = queue_name(&name)?;
    let empty = QueueStats { queue, waiting: 0, running: 0, oldest: None, dead_lettered: 0 };
    Ok(all.entry(name).or_insert(empty))
}

fn queue_name(name: &str) -> Result<QueueName, QueueError> {
    name.parse().map_err(|error| unreadable(name, error))
}
