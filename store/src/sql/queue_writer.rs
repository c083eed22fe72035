//! The task through which the queue is written: whatever waits for it becomes one transaction, so
//! that one sync to disk serves up to [`GROUP_MAX`] callers.
//!
//! On SQLite everything goes through one such task, since there is one writer anyway. On PostgreSQL
//! pushes go through one, which would otherwise stand in line for their queue's row, and what only
//! touches events that are held through another; claims and what is put back run side by side. A caller that goes away takes nothing along: its command is carried out all the same,
//! and events that were claimed for it are put back.

use std::sync::Arc;

use hanshu_core::Clock;
use hanshu_core::ports::{Claim, NewEvent, Pushed, QueueError, QueueName};
use sqlx::AnyConnection;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Db;
use super::queue_write::{self, How, Settle, Take};
use crate::error::Error;
use crate::wake::Wake;

/// Commands in one transaction, at most.
pub(super) const GROUP_MAX: usize = 256;

/// Something to be done, and who waits for it.
#[derive(Debug)]
pub(super) enum Command {
    Push(Job<NewEvent, Pushed>),
    Take(Job<Take, Vec<Claim>>),
    Settle(Job<Settle, ()>),
}

/// One command's work, what became of it, and where that is to go.
#[derive(Debug)]
pub(super) struct Job<W, T> {
    work: W,
    outcome: Option<Result<T, QueueError>>,
    reply: oneshot::Sender<Result<T, QueueError>>,
}

/// What a command locks on PostgreSQL, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locks {
    /// A queue's row, and new events.
    Queue,
    /// Events.
    Events,
    /// Events, then a queue's row.
    EventsAndQueue,
}

/// What carrying out a command takes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    pub(super) db: Db,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wake: Arc<Wake>,
}

impl<W, T> Job<W, T> {
    pub(super) fn new(work: W) -> (Self, oneshot::Receiver<Result<T, QueueError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, outcome: None, reply }, answer)
    }

    /// Answers; gives the outcome back if nobody waits any more.
    fn answer(self, else_failed: &QueueError) -> Option<T> {
        let outcome = self.outcome.unwrap_or_else(|| Err(same(else_failed)));
        self.reply.send(outcome).err()?.ok()
    }
}

impl Command {
    /// Does the work. A refusal is its outcome; a failure is the transaction's.
    async fn carry_out(
        &mut self,
        tx: &mut AnyConnection,
        db: &Db,
        number: Option<i64>,
    ) -> Result<(), QueueError> {
        match self {
            Self::Push(job) => {
                job.outcome = Some(refusal(queue_write::push(tx, &job.work, number).await)?);
            }
            Self::Take(job) => {
                let taken = queue_write::take(tx, db.dialect(), &job.work).await;
                job.outcome = Some(refusal(taken)?);
            }
            Self::Settle(job) => {
                job.outcome = Some(refusal(queue_write::settle(tx, &job.work).await)?);
            }
        }
        Ok(())
    }

    /// Takes back the outcome, after the transaction was.
    fn undo(&mut self) {
        match self {
            Self::Push(job) => job.outcome = None,
            Self::Take(job) => job.outcome = None,
            Self::Settle(job) => job.outcome = None,
        }
    }

    /// Whether a queue may have become ready by it.
    fn wakes(&self) -> bool {
        match self {
            Self::Push(job) => matches!(job.outcome, Some(Ok(Pushed::Accepted))),
            Self::Take(_) => false,
            Self::Settle(job) => {
                matches!(job.work.how, How::Retry { .. }) && matches!(job.outcome, Some(Ok(())))
            }
        }
    }

    /// The order in which locks are taken on PostgreSQL; commands on one queue stand together.
    fn order(&self) -> (Option<&QueueName>, &str) {
        match self {
            Self::Push(job) => (Some(&job.work.queue), ""),
            Self::Take(job) => (Some(&job.work.queue), ""),
            Self::Settle(job) => (None, &job.work.key),
        }
    }

    /// What it locks.
    pub(super) fn locks(&self) -> Locks {
        match self {
            Self::Push(_) => Locks::Queue,
            Self::Take(_) => Locks::EventsAndQueue,
            Self::Settle(job) => match job.work.how {
                How::Extend(_) | How::End { .. } => Locks::Events,
                How::Retry { .. } => Locks::EventsAndQueue,
            },
        }
    }

    /// For a push: into which queue, and the limit there.
    fn room(&self) -> Option<(&QueueName, u32)> {
        match self {
            Self::Push(job) => Some((&job.work.queue, job.work.max_waiting)),
            Self::Take(_) | Self::Settle(_) => None,
        }
    }
}

impl Writer {
    /// Serves until `stop` and then until nothing is left, or until nobody can send any more.
    pub(super) async fn serve(
        self,
        mut commands: mpsc::Receiver<Command>,
        stop: CancellationToken,
    ) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut stopping = false;
        loop {
            let count = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    commands.close();
                    continue;
                }
                count = commands.recv_many(&mut group, GROUP_MAX) => count,
            };
            if count == 0 {
                return;
            }
            group.sort_by(|one, other| one.order().cmp(&other.order()));
            self.carry_out(std::mem::take(&mut group)).await;
            group.reserve(GROUP_MAX);
        }
    }

    /// Carries out a group in one transaction. If that fails, each command gets one of its own,
    /// so that nobody suffers for another's.
    pub(super) async fn carry_out(&self, mut group: Vec<Command>) {
        match self.transact(&mut group).await {
            Ok(()) => self.answer(group, &unanswered()).await,
            Err(error) if group.len() == 1 || is_away(&error) => {
                group.iter_mut().for_each(Command::undo);
                self.answer(group, &error).await;
            }
            Err(_) => {
                let mut away = None;
                for mut command in group {
                    command.undo();
                    let mut alone = [command];
                    let result = match &away {
                        None => self.transact(&mut alone).await,
                        Some(error) => Err(same(error)),
                    };
                    if let Err(error) = &result {
                        alone.iter_mut().for_each(Command::undo);
                        if is_away(error) {
                            away = Some(same(error));
                        }
                    }
                    let error = result.err().unwrap_or_else(unanswered);
                    self.answer(alone.into(), &error).await;
                }
            }
        }
    }

    async fn transact(&self, group: &mut [Command]) -> Result<(), QueueError> {
        self.db
            .within(async {
                let mut tx = self.db.begin().await?;
                let mut rest = group;
                while !rest.is_empty() {
                    let (run, others) = rest.split_at_mut(run_of(rest));
                    self.carry_out_run(&mut tx, run).await?;
                    rest = others;
                }
                tx.commit().await.map_err(Error::from)?;
                Ok(())
            })
            .await
    }

    /// Makes room for a run of pushes in one step, if there is room for all; else for each alone.
    async fn carry_out_run(
        &self,
        tx: &mut AnyConnection,
        run: &mut [Command],
    ) -> Result<(), QueueError> {
        let count = i64::try_from(run.len()).unwrap_or(i64::MAX);
        let first = match run.first().and_then(Command::room) {
            Some((queue, max)) if 1 < count => {
                queue_write::admit(tx, &queue.to_string(), max, count).await?
            }
            Some(_) | None => None,
        };
        for (n, command) in (0..).zip(run) {
            command.carry_out(tx, &self.db, first.map(|first| first + n)).await?;
        }
        Ok(())
    }

    /// Answers everybody after the commit. Events claimed for somebody who is gone go back.
    async fn answer(&self, group: Vec<Command>, else_failed: &QueueError) {
        let wakes = group.iter().any(Command::wakes);
        let mut orphans = Vec::new();
        for command in group {
            match command {
                Command::Push(job) => drop(job.answer(else_failed)),
                Command::Settle(job) => drop(job.answer(else_failed)),
                Command::Take(job) => orphans.extend(job.answer(else_failed).unwrap_or_default()),
            }
        }
        if wakes {
            self.wake.ring();
        }
        if !orphans.is_empty() {
            self.put_back(orphans).await;
        }
    }

    async fn put_back(&self, claims: Vec<Claim>) {
        let due = self.clock.now();
        let put = self.db.within(async {
            let mut tx = self.db.begin().await?;
            for Claim { receipt, queue, .. } in claims {
                let how = How::Retry { queue, due, line: String::new() };
                let back = Settle { key: receipt.key, claim: receipt.claim, how };
                refusal(queue_write::settle(&mut tx, &back).await)?.ok();
            }
            tx.commit().await.map_err(Error::from)?;
            Ok::<_, QueueError>(())
        });
        match put.await {
            Ok(()) => self.wake.ring(),
            Err(error) => {
                tracing::warn!(%error, "Claimed events that nobody waits for stay until their holds end");
            }
        }
    }
}

/// How many at the start are pushes into one queue; 1 if the first is something else.
fn run_of(group: &[Command]) -> usize {
    let Some(room) = group.first().and_then(Command::room) else { return 1 };
    group.iter().take_while(|command| command.room() == Some(room)).count()
}

/// Tells a command's own refusal from a failure of the transaction.
fn refusal<T>(result: Result<T, QueueError>) -> Result<Result<T, QueueError>, QueueError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (QueueError::Full { .. } | QueueError::Stale(_))) => Ok(Err(error)),
        Err(error @ (QueueError::Unavailable(_) | QueueError::Internal(_))) => Err(error),
    }
}

fn is_away(error: &QueueError) -> bool {
    error.kind() == hanshu_core::ErrorKind::Unavailable
}

/// For the next one in the group.
fn same(error: &QueueError) -> QueueError {
    match error {
        QueueError::Full { queue, waiting } => {
            QueueError::Full { queue: queue.clone(), waiting: *waiting }
        }
        QueueError::Stale(key) => QueueError::Stale(key.clone()),
        QueueError::Unavailable(text) => QueueError::Unavailable(text.clone()),
        QueueError::Internal(text) => QueueError::Internal(text.clone()),
    }
}

fn unanswered() -> QueueError {
    QueueError::Internal("a command of the queue was not carried out".into())
}
