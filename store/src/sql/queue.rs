//! Queues in the database: a row for each event with its state. The embedded default.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hanshu_core::ports::{
    Claim, EventEnd, EventQueue, EventSource, NewEvent, PushOutcome, QueueError, QueueName,
    QueueStats, ReadyQueues, Receipt,
};
use hanshu_core::{AsyncState, Attempt, Clock, Digest, NodeId, RequestId, Timestamp};
use sqlx::{query, query_as, query_scalar};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Db;
use super::dialect::Dialect;
use super::queue_text as text;
use super::queue_write::{How, Settle, Take};
use super::queue_writer::{Command, GROUP_MAX, Job, Locks, Writer};
use crate::error::Error;
use crate::stored::{self, End, StoredState, unreadable};
use crate::wake::Wake;

/// Queues in an SQLite or PostgreSQL database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqlQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    clock: Arc<dyn Clock>,
    wake: Arc<Wake>,
    commands: mpsc::Sender<Command>,
    /// PostgreSQL's ends and extensions: they lock events, pushes lock queues, and a transaction
    /// that did both could wait in a circle with a claim.
    ends: mpsc::Sender<Command>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One queue.
#[derive(Debug)]
struct SqlSource {
    inner: Arc<Inner>,
    queue: QueueName,
}

/// queue, version, origin, state, attempts, begun, accepted, ended, result, error
type StateRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
);

impl SqlQueue {
    /// Commands that wait for the writer; more callers wait to be let in.
    const COMMANDS_MAX: usize = 4 * GROUP_MAX;
    /// How soon `changed` notices what another process pushed, where there may be one.
    const POLL: Duration = Duration::from_millis(200);
    /// Ended events dropped in one statement, so that pushes get their turn in between.
    const COLLECT_MAX: i64 = 500;

    /// The queues of that database. Their writer runs on `tasks` until [`SqlQueue::close`], or
    /// until this and all its clones and sources are dropped.
    pub fn start(db: Db, clock: Arc<dyn Clock>, tasks: &TaskTracker) -> Self {
        let (wake, stop) = (Arc::new(Wake::default()), CancellationToken::new());
        let writer = Writer { db: db.clone(), clock: Arc::clone(&clock), wake: Arc::clone(&wake) };
        let serve = || {
            let (commands, receiver) = mpsc::channel(Self::COMMANDS_MAX);
            tasks.spawn(writer.clone().serve(receiver, stop.clone()));
            commands
        };
        let commands = serve();
        let ends = match db.dialect() {
            Dialect::Sqlite => commands.clone(),
            Dialect::Postgres => serve(),
        };
        Self(Arc::new(Inner { db, clock, wake, commands, ends, tasks: tasks.clone(), stop }))
    }

    /// Ends all holds, so that what an earlier process held can be claimed at once. For the only
    /// process on this database, before it claims. Returns how many it were.
    ///
    /// # Errors
    /// [`QueueError::Unavailable`].
    pub async fn release_all(&self) -> Result<u64, QueueError> {
        let db = &self.0.db;
        let released = query(text::RELEASE).execute(db.writer());
        let released = db.within(async { released.await.map_err(Error::from) }).await?;
        Ok(released.rows_affected())
    }
}

impl Inner {
    /// The longest wait for the writer's answer; what was sent may yet be carried out.
    const ANSWER: Duration = Duration::from_secs(30);

    /// Has a command carried out.
    async fn have<W, T>(
        &self,
        work: W,
        command: fn(Job<W, T>) -> Command,
    ) -> Result<T, QueueError> {
        let (job, answer) = Job::new(work);
        match time::timeout(Self::ANSWER, self.send(command(job), answer)).await {
            Ok(result) => result,
            Err(_) => Err(QueueError::Unavailable(format!(
                "the database's writer did not answer within {} s",
                Self::ANSWER.as_secs()
            ))),
        }
    }

    async fn send<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        let ended = || QueueError::Unavailable("the queue is closed".into());
        match (self.db.dialect(), command.locks()) {
            (Dialect::Sqlite, _) | (Dialect::Postgres, Locks::Queue) => {
                self.commands.send(command).await.map_err(|_| ended())?;
            }
            (Dialect::Postgres, Locks::Events) => {
                self.ends.send(command).await.map_err(|_| ended())?;
            }
            (Dialect::Postgres, Locks::EventsAndQueue) => {
                // A task of its own: it is carried out even if the caller goes away.
                let writer = Writer {
                    db: self.db.clone(),
                    clock: Arc::clone(&self.clock),
                    wake: Arc::clone(&self.wake),
                };
                self.tasks.spawn(async move { writer.carry_out(vec![command]).await });
            }
        }
        answer.await.map_err(|_| ended())?
    }

    async fn settle(&self, receipt: &Receipt, how: How) -> Result<(), QueueError> {
        let settle = Settle { key: receipt.key.clone(), claim: receipt.claim, how };
        self.have(settle, Command::Settle).await
    }
}

#[async_trait]
impl EventSource for SqlSource {
    async fn claim(
        &self,
        max: usize,
        hold: Duration,
        node: &NodeId,
    ) -> Result<Vec<Claim>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let now = self.inner.clock.now();
        let max = max.min(GROUP_MAX);
        let take = Take { queue: self.queue.clone(), max, hold, node: node.clone(), now };
        self.inner.have(take, Command::Take).await
    }

    async fn extend(&self, receipt: &Receipt, hold: Duration) -> Result<(), QueueError> {
        let until = stored::hold_end(self.inner.clock.now(), hold);
        self.inner.settle(receipt, How::Extend(until)).await
    }

    async fn end(
        &self,
        receipt: Receipt,
        attempt: Option<Attempt>,
        ended: EventEnd,
    ) -> Result<(), QueueError> {
        let end = End::of(&ended)?;
        let line = stored::finished(attempt.as_ref())?;
        let now = self.inner.clock.now();
        self.inner.settle(&receipt, How::End { end, now, line }).await
    }

    async fn retry(
        &self,
        receipt: Receipt,
        due: Timestamp,
        attempt: Option<Attempt>,
    ) -> Result<(), QueueError> {
        let line = stored::finished(attempt.as_ref())?;
        let how = How::Retry { queue: self.queue.clone(), due, line };
        self.inner.settle(&receipt, how).await
    }
}

#[async_trait]
impl EventQueue for SqlQueue {
    async fn push(&self, event: NewEvent) -> Result<PushOutcome, QueueError> {
        self.0.have(event, Command::Push).await
    }

    async fn ready(&self, max: usize) -> Result<ReadyQueues, QueueError> {
        let now = self.0.clock.now().as_microsecond();
        let limit = i64::try_from(max).unwrap_or(i64::MAX).max(1);
        let firsts = query_as(text::READY).bind(limit).fetch_all(self.0.db.reader());
        let firsts: Vec<(String, i64)> =
            self.0.db.within(async { firsts.await.map_err(Error::from) }).await?;
        let next_due = match firsts.first() {
            Some((_, at)) if now < *at => Some(stored::time(*at)?),
            Some(_) | None => None,
        };
        let due = firsts.into_iter().take_while(|(_, at)| *at <= now).take(max);
        let queues = due.map(|(name, _)| queue_name(&name)).collect::<Result<_, _>>()?;
        Ok(ReadyQueues { queues, next_due })
    }

    async fn changed(&self, at_most: Duration) {
        let at_most = match self.0.db.dialect() {
            Dialect::Sqlite => at_most,
            Dialect::Postgres => at_most.min(Self::POLL),
        };
        self.0.wake.wait(at_most).await;
    }

    fn source(&self, queue: &QueueName) -> Arc<dyn EventSource> {
        Arc::new(SqlSource { inner: Arc::clone(&self.0), queue: queue.clone() })
    }

    async fn state(&self, request_id: RequestId) -> Result<Option<AsyncState>, QueueError> {
        let row =
            query_as(text::STATE).bind(request_id.to_string()).fetch_optional(self.0.db.reader());
        let row: Option<StateRow> =
            self.0.db.within(async { row.await.map_err(Error::from) }).await?;
        row.map(|row| state_of(request_id, row).try_into()).transpose()
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let counts = self.0.db.within(async {
            let mut tx = self.0.db.begin_snapshot().await?;
            let waiting: Vec<(String, i64, Option<i64>)> =
                query_as(text::COUNT_WAITING).fetch_all(&mut *tx).await?;
            let held: Vec<(String, i64)> = query_as(text::COUNT_HELD).fetch_all(&mut *tx).await?;
            let dead_lettered: Vec<(String, i64)> =
                query_as(text::COUNT_DEAD_LETTERED).fetch_all(&mut *tx).await?;
            tx.commit().await?;
            Ok::<_, Error>((waiting, held, dead_lettered))
        });
        let (waiting, held, dead_lettered) = counts.await?;
        let mut all = std::collections::BTreeMap::new();
        for (name, count, oldest) in waiting {
            let stats = stats_of(&mut all, name)?;
            stats.waiting = u64::try_from(count).unwrap_or(0);
            stats.oldest = oldest.map(stored::time).transpose()?;
        }
        for (name, count) in held {
            stats_of(&mut all, name)?.running = u64::try_from(count).unwrap_or(0);
        }
        for (name, count) in dead_lettered {
            stats_of(&mut all, name)?.dead_lettered = u64::try_from(count).unwrap_or(0);
        }
        Ok(all.into_values().collect())
    }

    async fn collect(&self, ended_before: Timestamp) -> Result<u64, QueueError> {
        let Inner { db, .. } = &*self.0;
        let (events, queues) = text::collects(db.dialect());
        let mut dropped = 0;
        loop {
            let some = query(events)
                .bind(ended_before.as_microsecond())
                .bind(Self::COLLECT_MAX)
                .execute(db.writer());
            let some = db.within(async { some.await.map_err(Error::from) }).await?;
            dropped += some.rows_affected();
            if some.rows_affected() < Self::COLLECT_MAX.unsigned_abs() {
                break;
            }
        }
        let empty = query(queues).execute(db.writer());
        db.within(async { empty.await.map_err(Error::from) }).await?;
        Ok(dropped)
    }

    async fn pinned(&self) -> Result<Vec<Digest>, QueueError> {
        let pins = query_scalar(text::PINNED).fetch_all(self.0.db.reader());
        let pins: Vec<String> = self.0.db.within(async { pins.await.map_err(Error::from) }).await?;
        pins.iter().map(|text| text.parse().map_err(|error| unreadable(text, error))).collect()
    }

    async fn durability_warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn close(&self) {
        self.0.stop.cancel();
    }
}

fn state_of(request_id: RequestId, row: StateRow) -> StoredState {
    let (queue, version, origin, state, attempts, begun, accepted_us, ended_us, result, error) =
        row;
    StoredState {
        request_id,
        queue,
        version,
        origin,
        state,
        attempts,
        begun,
        accepted_us,
        ended_us,
        result,
        error,
    }
}

fn stats_of(
    all: &mut std::collections::BTreeMap<String, QueueStats>,
    name: String,
) -> Result<&mut QueueStats, QueueError> {
    let queue = queue_name(&name)?;
    let empty = QueueStats { queue, waiting: 0, running: 0, oldest: None, dead_lettered: 0 };
    Ok(all.entry(name).or_insert(empty))
}

fn queue_name(name: &str) -> Result<QueueName, QueueError> {
    name.parse().map_err(|error| unreadable(name, error))
}
