//! The task that writes the queue: all commands that wait for it become one transaction, so that
//! one sync to disk serves up to [`GROUP_MAX`] callers.
//!
//! One transaction for each command accepts at most one event per sync: 250 a second on a disk
//! that syncs in 4 ms. In groups it is 13,142 a second, 0.66 of what SQLite does bare (row
//! `accept_sqlite` of docs/promises.md).
//!
//! On SQLite every command goes through one such task, since SQLite has one writer. On PostgreSQL
//! pushes go through one, because they would wait for each other's lock on the queue's row, and
//! settles that touch only claimed events go through another; claims and retries run in parallel.
//! The command of a caller that goes away is carried out all the same, and events that were
//! claimed for it are put back.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::Clock;
use hanshu_core::ports::{Claim, QueueError};
use sqlx::{Any, AnyConnection, Transaction};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::batch::{self, BulkOutcome};
use super::commands::{QueueCommand, separate_refusal};
use super::transactions::{self, SettleCommand, SettleOperation};
use crate::claim_token::ClaimToken;
use crate::ready_signal::ReadySignal;
use crate::sql::database::SqlDatabase;
use crate::sql::ended_events;
use crate::sql::error::DatabaseError;

/// Commands in one transaction, at most.
pub(super) const GROUP_MAX: usize = 256;

/// Carries out groups of commands.
#[derive(Clone, Debug)]
pub(super) struct GroupCommitter {
    pub(super) db: SqlDatabase,
    pub(super) clock: Arc<dyn Clock>,
    /// Notified when a queue may have become ready.
    pub(super) signal: Arc<ReadySignal>,
}

/// The group before: how many it served, how many waited when it was over, how long it took.
#[derive(Debug, Default)]
struct PreviousGroup {
    served: usize,
    left: usize,
    took: Duration,
}

impl PreviousGroup {
    /// The wait for more commands is this fraction of the previous group's time, at most
    /// `WAIT_MAX`; a wait below `WAIT_MIN` is left out.
    const WAIT_FRACTION: u32 = 8;
    const WAIT_MIN: Duration = Duration::from_micros(100);
    const WAIT_MAX: Duration = Duration::from_millis(2);

    /// Waits briefly for the callers that were just answered. Without it, callers that send their
    /// next command as soon as they have an answer form two groups that alternate, each waiting
    /// for the other's sync to disk.
    async fn gather(
        &self,
        group: &mut Vec<QueueCommand>,
        commands: &mut mpsc::Receiver<QueueCommand>,
    ) {
        let expected = (self.served + self.left).min(GROUP_MAX);
        let wait = (self.took / Self::WAIT_FRACTION).min(Self::WAIT_MAX);
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

impl GroupCommitter {
    /// Serves until `stop` and then until nothing is left, or until nobody can send any more.
    pub(super) async fn serve(
        self,
        mut commands: mpsc::Receiver<QueueCommand>,
        stop: CancellationToken,
    ) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        let mut stopping = false;
        let mut previous = PreviousGroup::default();
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
            previous.gather(&mut group, &mut commands).await;
            group.sort_by(|one, other| one.lock_order().cmp(&other.lock_order()));
            let (served, began) = (group.len(), Instant::now());
            self.carry_out(std::mem::take(&mut group)).await;
            previous = PreviousGroup { served, left: commands.len(), took: began.elapsed() };
            group.reserve(GROUP_MAX);
        }
    }

    /// Carries out a group in one transaction. If that fails, each command gets a transaction of
    /// its own, so that only the one at fault fails.
    pub(super) async fn carry_out(&self, mut group: Vec<QueueCommand>) {
        match self.transact(&mut group).await {
            Ok(()) => self.reply(group, &not_carried_out()).await,
            Err(error) if group.len() == 1 || is_unavailable(&error) => {
                group.iter_mut().for_each(QueueCommand::undo);
                self.reply(group, &error).await;
            }
            Err(_) => self.carry_out_singly(group).await,
        }
    }

    /// Each command in a transaction of its own, until the database is unavailable.
    async fn carry_out_singly(&self, group: Vec<QueueCommand>) {
        let mut unavailable: Option<QueueError> = None;
        for mut command in group {
            command.undo();
            let mut single = [command];
            let result = match &unavailable {
                None => self.transact(&mut single).await,
                Some(error) => Err(error.clone()),
            };
            if let Err(error) = &result {
                single.iter_mut().for_each(QueueCommand::undo);
                if is_unavailable(error) {
                    unavailable = Some(error.clone());
                }
            }
            let error = result.err().unwrap_or_else(not_carried_out);
            self.reply(single.into(), &error).await;
        }
    }

    /// Carries out a group in one transaction: commands of a kind in batches if that is possible,
    /// else one by one.
    async fn transact(&self, group: &mut [QueueCommand]) -> Result<(), QueueError> {
        self.db
            .within(async {
                if 1 < group.len() {
                    let mut tx = self.db.begin().await?;
                    match self.carry_out_batches(&mut tx, group).await? {
                        BulkOutcome::Done(()) => return self.carry_out_rest(tx, group).await,
                        BulkOutcome::Fallback => {
                            tx.rollback().await.map_err(DatabaseError::from)?;
                            group.iter_mut().for_each(QueueCommand::undo);
                        }
                    }
                }
                self.carry_out_rest(self.db.begin().await?, group).await
            })
            .await
    }

    /// Ends and pushes, each kind in a few statements. After a fallback the transaction and all
    /// outcomes are void.
    async fn carry_out_batches(
        &self,
        tx: &mut AnyConnection,
        group: &mut [QueueCommand],
    ) -> Result<BulkOutcome<()>, QueueError> {
        let dialect = self.db.dialect();
        let completions: Vec<_> = group.iter().filter_map(QueueCommand::completion).collect();
        if 1 < completions.len() {
            match batch::end(tx, dialect, &completions).await? {
                BulkOutcome::Done(()) => group.iter_mut().for_each(QueueCommand::set_completed),
                BulkOutcome::Fallback => return Ok(BulkOutcome::Fallback),
            }
        }
        let events: Vec<_> = group.iter().filter_map(QueueCommand::event).collect();
        if events.len() < 2 {
            return Ok(BulkOutcome::Done(()));
        }
        match batch::push(tx, dialect, &events).await? {
            BulkOutcome::Done(outcomes) => {
                let pushes = group.iter_mut().filter_map(QueueCommand::as_push);
                for (push, outcome) in pushes.zip(outcomes) {
                    push.set_outcome(outcome.map(Ok));
                }
                Ok(BulkOutcome::Done(()))
            }
            BulkOutcome::Fallback => Ok(BulkOutcome::Fallback),
        }
    }

    async fn carry_out_rest(
        &self,
        mut tx: Transaction<'static, Any>,
        group: &mut [QueueCommand],
    ) -> Result<(), QueueError> {
        if 1 < group.len() && group.iter().any(QueueCommand::is_pending_end) {
            // Other processes take this lock before those of events too.
            ended_events::lock(&mut tx).await?;
        }
        for command in group {
            command.carry_out(&mut tx, self.db.dialect()).await?;
        }
        Ok(tx.commit().await.map_err(DatabaseError::from)?)
    }

    /// Sends all outcomes, after the commit. Events claimed for a caller that is gone are put
    /// back.
    async fn reply(&self, group: Vec<QueueCommand>, otherwise: &QueueError) {
        let makes_ready = group.iter().any(QueueCommand::makes_ready);
        let mut unclaimed = Vec::new();
        for command in group {
            match command {
                QueueCommand::Push(push) => drop(push.reply(otherwise)),
                QueueCommand::Settle(settle) => drop(settle.reply(otherwise)),
                QueueCommand::Cancel(cancel) => drop(cancel.reply(otherwise)),
                QueueCommand::Claim(claim) => {
                    unclaimed.extend(claim.reply(otherwise).unwrap_or_default());
                }
            }
        }
        if makes_ready {
            self.signal.notify();
        }
        if !unclaimed.is_empty() {
            self.put_back(unclaimed).await;
        }
    }

    async fn put_back(&self, claims: Vec<Claim>) {
        let due = self.clock.now();
        let put = self.db.within(async {
            let mut tx = self.db.begin().await?;
            for Claim { receipt, queue, .. } in claims {
                let action = SettleOperation::Retry { queue, due, line: String::new() };
                let back = SettleCommand { claim: ClaimToken::of(&receipt)?, action };
                separate_refusal(transactions::settle(&mut tx, self.db.dialect(), &back).await)?
                    .ok();
            }
            tx.commit().await.map_err(DatabaseError::from)?;
            Ok::<_, QueueError>(())
        });
        match put.await {
            Ok(()) => self.signal.notify(),
            Err(error) => {
                tracing::warn!(%error, "Claimed events that nobody waits for stay until their holds end");
            }
        }
    }
}

fn is_unavailable(error: &QueueError) -> bool {
    error.kind() == hanshu_core::ErrorKind::Unavailable
}

fn not_carried_out() -> QueueError {
    QueueError::Internal("a command of the queue was not carried out".into())
}
