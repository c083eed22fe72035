//! Hands commands to the tasks that write the queue, and waits for their outcomes.

use std::sync::Arc;
use std::time::Duration;

use hanshu_core::Clock;
use hanshu_core::ports::{QueueError, Receipt};
use tokio::sync::{mpsc, oneshot};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::commands::{LockScope, PendingCommand, QueueCommand};
use super::group_commit::{GROUP_MAX, GroupCommitter};
use super::transactions::{SettleCommand, SettleOperation, SettleOutcome};
use crate::claim_token::ClaimToken;
use crate::ready_signal::ReadySignal;
use crate::sql::database::SqlDatabase;
use crate::sql::dialect::Dialect;

/// The queue's database and the ways to write it.
#[derive(Debug)]
pub(super) struct QueueWriters {
    committer: GroupCommitter,
    commands: mpsc::Sender<QueueCommand>,
    /// PostgreSQL's ends and extensions: they lock events while pushes lock queues, and a
    /// transaction that did both could deadlock with a claim.
    settles: mpsc::Sender<QueueCommand>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl QueueWriters {
    /// Commands that wait for the writer; more callers wait to be let in.
    const COMMANDS_MAX: usize = 4 * GROUP_MAX;
    /// The longest wait for the writer's answer; what was sent may yet be carried out.
    const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

    /// Starts the writers. They run on `tasks` until [`QueueWriters::close`], or until this is
    /// dropped.
    pub(super) fn start(db: SqlDatabase, clock: Arc<dyn Clock>, tasks: &TaskTracker) -> Self {
        let (signal, stop) = (Arc::new(ReadySignal::default()), CancellationToken::new());
        let committer = GroupCommitter { db, clock, signal };
        let serve = || {
            let (commands, receiver) = mpsc::channel(Self::COMMANDS_MAX);
            tasks.spawn(committer.clone().serve(receiver, stop.clone()));
            commands
        };
        let commands = serve();
        let settles = match committer.db.dialect() {
            Dialect::Sqlite => commands.clone(),
            Dialect::Postgres => serve(),
        };
        Self { committer, commands, settles, tasks: tasks.clone(), stop }
    }

    pub(super) fn db(&self) -> &SqlDatabase {
        &self.committer.db
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.committer.clock
    }

    /// Notified when a queue may have become ready.
    pub(super) fn signal(&self) -> &ReadySignal {
        &self.committer.signal
    }

    /// Ends the writers once they have carried out what they were given.
    pub(super) fn close(&self) {
        self.stop.cancel();
    }

    /// Has a command carried out and waits for its outcome.
    pub(super) async fn run<W, T>(
        &self,
        work: W,
        command: fn(PendingCommand<W, T>) -> QueueCommand,
    ) -> Result<T, QueueError> {
        let (pending, answer) = PendingCommand::new(work);
        match time::timeout(Self::ANSWER_TIMEOUT, self.send(command(pending), answer)).await {
            Ok(result) => result,
            Err(_) => Err(QueueError::Unavailable(
                format!(
                    "the database's writer did not answer within {} s",
                    Self::ANSWER_TIMEOUT.as_secs()
                )
                .into(),
            )),
        }
    }

    /// Extends, puts back or ends a claimed event.
    pub(super) async fn settle(
        &self,
        receipt: &Receipt,
        action: SettleOperation,
    ) -> Result<SettleOutcome, QueueError> {
        let settle = SettleCommand { claim: ClaimToken::of(receipt)?, action };
        self.run(settle, QueueCommand::Settle).await
    }

    async fn send<T>(
        &self,
        command: QueueCommand,
        answer: oneshot::Receiver<Result<T, QueueError>>,
    ) -> Result<T, QueueError> {
        let closed = || QueueError::Unavailable("the queue is closed".into());
        match (self.db().dialect(), command.lock_scope()) {
            (Dialect::Sqlite, _) | (Dialect::Postgres, LockScope::Queue) => {
                self.commands.send(command).await.map_err(|_| closed())?;
            }
            (Dialect::Postgres, LockScope::Events) => {
                self.settles.send(command).await.map_err(|_| closed())?;
            }
            (Dialect::Postgres, LockScope::EventsAndQueue) => {
                // In a task of its own: it is carried out even if the caller goes away.
                let committer = self.committer.clone();
                self.tasks.spawn(async move { committer.carry_out(vec![command]).await });
            }
        }
        answer.await.map_err(|_| closed())?
    }
}
