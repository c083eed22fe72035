//! The task through which the queue is written: whatever waits for it becomes one transaction, so
//! that one sync to disk serves up to [`GROUP_MAX`] callers.
//!
//! On SQLite everything goes through one such task, since there is one writer anyway. On PostgreSQL
//! pushes go through one, which would otherwise stand in line for their queue's row, and what only
//! touches events that are held through another; claims and what is put back run side by side. A caller that goes away takes nothing along: its command is carried out all the same,
//! and events that were claimed for it are put back.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::Clock;
use hanshu_core::ports::{Claim, NewEvent, PushOutcome, QueueError, QueueName};
use sqlx::{Any, AnyConnection, Transaction};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Db;
use super::queue_bulk::{self, Ending, Together};
use super::queue_write::{self, How, Settle, Take};
use crate::error::Error;
use crate::wake::Wake;

/// Commands in one transaction, at most.
pub(super) const GROUP_MAX: usize = 256;

/// Something to be done, and who waits for it.
#[derive(Debug)]
pub(super) enum Command {
    Push(Job<NewEvent, PushOutcome>),
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

/// The group before: how many it served, how many waited when it was over, how long it took.
#[derive(Debug, Default)]
struct Last {
    served: usize,
    left: usize,
    took: Duration,
}

impl Last {
    /// The part of a group's time that it waits for more; and not at all for less than this, nor
    /// for longer than that.
    const PART: u32 = 8;
    const WAIT_MIN: Duration = Duration::from_micros(100);
    const WAIT_MAX: Duration = Duration::from_millis(2);

    /// Waits a moment for those who were just answered: callers that go on as soon as they have
    /// their answer would else fall into two halves that take turns, each waiting for the other's
    /// sync to disk.
    async fn gather(&self, group: &mut Vec<Command>, commands: &mut mpsc::Receiver<Command>) {
        let expected = (self.served + self.left).min(GROUP_MAX);
        let wait = (self.took / Self::PART).min(Self::WAIT_MAX);
        if expected <= group.len() || wait < Self::WAIT_MIN {
            return;
        }
        let rest = async {
            while group.len() < expected {
                let room = GROUP_MAX - group.len();
                if commands.recv_many(group, room).await == 0 {
                    return;
                }
            }
        };
        // What was received stays in the group.
        let _ = timeout(wait, rest).await;
    }
}

impl<W, T> Job<W, T> {
    pub(super) fn new(work: W) -> (Self, oneshot::Receiver<Result<T, QueueError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, outcome: None, reply }, answer)
    }

    /// Answers; gives the outcome back if nobody waits any more.
    fn answer(self, else_failed: &QueueError) -> Option<T> {
        let outcome = self.outcome.unwrap_or_else(|| Err(else_failed.clone()));
        self.reply.send(outcome).err()?.ok()
    }
}

impl Command {
    /// Does the work, unless it is done. A refusal is its outcome; a failure is the transaction's.
    async fn carry_out(&mut self, tx: &mut AnyConnection, db: &Db) -> Result<(), QueueError> {
        match self {
            Self::Push(Job { outcome: Some(_), .. })
            | Self::Take(Job { outcome: Some(_), .. })
            | Self::Settle(Job { outcome: Some(_), .. }) => {}
            Self::Push(job) => {
                job.outcome = Some(refusal(queue_write::push(tx, &job.work).await)?);
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
            Self::Push(job) => matches!(job.outcome, Some(Ok(PushOutcome::Accepted))),
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

    fn event(&self) -> Option<&NewEvent> {
        match self {
            Self::Push(job) => Some(&job.work),
            Self::Take(_) | Self::Settle(_) => None,
        }
    }

    fn push(&mut self) -> Option<&mut Job<NewEvent, PushOutcome>> {
        match self {
            Self::Push(job) => Some(job),
            Self::Take(_) | Self::Settle(_) => None,
        }
    }

    fn ending(&self) -> Option<Ending<'_>> {
        let Self::Settle(job) = self else { return None };
        let Settle { key, claim, how } = &job.work;
        match how {
            How::End { end, now, line } => {
                Some(Ending { key, claim: *claim, end, now: *now, line })
            }
            How::Extend(_) | How::Retry { .. } => None,
        }
    }

    fn ended(&mut self) {
        if let Self::Settle(job) = self
            && matches!(job.work.how, How::End { .. })
        {
            job.outcome = Some(Ok(()));
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
        let mut last = Last::default();
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
            last.gather(&mut group, &mut commands).await;
            group.sort_by(|one, other| one.order().cmp(&other.order()));
            let (served, began) = (group.len(), Instant::now());
            self.carry_out(std::mem::take(&mut group)).await;
            last = Last { served, left: commands.len(), took: began.elapsed() };
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
                let mut away: Option<QueueError> = None;
                for mut command in group {
                    command.undo();
                    let mut alone = [command];
                    let result = match &away {
                        None => self.transact(&mut alone).await,
                        Some(error) => Err(error.clone()),
                    };
                    if let Err(error) = &result {
                        alone.iter_mut().for_each(Command::undo);
                        if is_away(error) {
                            away = Some(error.clone());
                        }
                    }
                    let error = result.err().unwrap_or_else(unanswered);
                    self.answer(alone.into(), &error).await;
                }
            }
        }
    }

    /// Carries out a group in one transaction: what is alike together, if nothing stands in the
    /// way; else one by one.
    async fn transact(&self, group: &mut [Command]) -> Result<(), QueueError> {
        self.db
            .within(async {
                if 1 < group.len() {
                    let mut tx = self.db.begin().await?;
                    if self.carry_out_alike(&mut tx, group).await? {
                        return self.carry_out_rest(tx, group).await;
                    }
                    tx.rollback().await.map_err(Error::from)?;
                    group.iter_mut().for_each(Command::undo);
                }
                self.carry_out_rest(self.db.begin().await?, group).await
            })
            .await
    }

    /// Ends and pushes, each kind in a few statements. Whether that can be; where it cannot, the
    /// transaction and all outcomes are void.
    async fn carry_out_alike(
        &self,
        tx: &mut AnyConnection,
        group: &mut [Command],
    ) -> Result<bool, QueueError> {
        let dialect = self.db.dialect();
        let endings: Vec<_> = group.iter().filter_map(Command::ending).collect();
        if 1 < endings.len() {
            match queue_bulk::end(tx, dialect, &endings).await? {
                Together::Done(()) => group.iter_mut().for_each(Command::ended),
                Together::NotSo => return Ok(false),
            }
        }
        let events: Vec<_> = group.iter().filter_map(Command::event).collect();
        if events.len() < 2 {
            return Ok(true);
        }
        match queue_bulk::push(tx, dialect, &events).await? {
            Together::Done(outcomes) => {
                let pushes = group.iter_mut().filter_map(Command::push);
                for (job, outcome) in pushes.zip(outcomes) {
                    job.outcome = outcome.map(Ok);
                }
                Ok(true)
            }
            Together::NotSo => Ok(false),
        }
    }

    async fn carry_out_rest(
        &self,
        mut tx: Transaction<'static, Any>,
        group: &mut [Command],
    ) -> Result<(), QueueError> {
        for command in group {
            command.carry_out(&mut tx, &self.db).await?;
        }
        Ok(tx.commit().await.map_err(Error::from)?)
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

fn unanswered() -> QueueError {
    QueueError::Internal("a command of the queue was not carried out".into())
}
