//! A command for the queue's writer: what it does, what it locks, and who waits for its outcome.

use hanshu_core::RequestId;
use hanshu_core::ports::{CancelOutcome, Claim, NewEvent, PushOutcome, QueueError, QueueName};
use sqlx::AnyConnection;
use tokio::sync::oneshot;

use super::batch::Completion;
use super::transactions::{
    self, CancelCommand, ClaimCommand, SettleCommand, SettleOperation, SettleOutcome,
};
use crate::sql::dialect::Dialect;

/// What a caller asks of the queue.
#[derive(Debug)]
pub(super) enum QueueCommand {
    Push(PendingCommand<NewEvent, PushOutcome>),
    Claim(PendingCommand<ClaimCommand, Vec<Claim>>),
    Settle(PendingCommand<SettleCommand, SettleOutcome>),
    Cancel(PendingCommand<CancelCommand, CancelOutcome>),
}

/// One command's work, its outcome once it has one, and where that is to be sent.
#[derive(Debug)]
pub(super) struct PendingCommand<W, T> {
    work: W,
    outcome: Option<Result<T, QueueError>>,
    reply: oneshot::Sender<Result<T, QueueError>>,
}

/// What a command locks on PostgreSQL, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockScope {
    /// A queue's row, and new events.
    Queue,
    /// Rows of events only.
    Events,
    /// Rows of events, then a queue's row.
    EventsAndQueue,
}

impl<W, T> PendingCommand<W, T> {
    pub(super) fn new(work: W) -> (Self, oneshot::Receiver<Result<T, QueueError>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, outcome: None, reply }, answer)
    }

    pub(super) fn set_outcome(&mut self, outcome: Option<Result<T, QueueError>>) {
        self.outcome = outcome;
    }

    /// Sends the outcome, `otherwise` if there is none; returns a success that nobody waits for
    /// any more.
    pub(super) fn reply(self, otherwise: &QueueError) -> Option<T> {
        let outcome = self.outcome.unwrap_or_else(|| Err(otherwise.clone()));
        self.reply.send(outcome).err()?.ok()
    }
}

impl QueueCommand {
    /// Does the work, unless it is done. A refusal is the command's outcome; any other error is
    /// the transaction's.
    pub(super) async fn carry_out(
        &mut self,
        tx: &mut AnyConnection,
        dialect: Dialect,
    ) -> Result<(), QueueError> {
        match self {
            Self::Push(PendingCommand { outcome: Some(_), .. })
            | Self::Claim(PendingCommand { outcome: Some(_), .. })
            | Self::Settle(PendingCommand { outcome: Some(_), .. })
            | Self::Cancel(PendingCommand { outcome: Some(_), .. }) => {}
            Self::Push(push) => {
                push.outcome = Some(separate_refusal(transactions::push(tx, &push.work).await)?);
            }
            Self::Claim(claim) => {
                let claimed = transactions::claim(tx, dialect, &claim.work).await;
                claim.outcome = Some(separate_refusal(claimed)?);
            }
            Self::Settle(settle) => {
                let settled = transactions::settle(tx, dialect, &settle.work).await;
                settle.outcome = Some(separate_refusal(settled)?);
            }
            Self::Cancel(cancel) => {
                let cancelled = transactions::cancel(tx, dialect, &cancel.work).await;
                cancel.outcome = Some(separate_refusal(cancelled)?);
            }
        }
        Ok(())
    }

    /// Forgets the outcome, after the transaction was rolled back.
    pub(super) fn undo(&mut self) {
        match self {
            Self::Push(push) => push.outcome = None,
            Self::Claim(claim) => claim.outcome = None,
            Self::Settle(settle) => settle.outcome = None,
            Self::Cancel(cancel) => cancel.outcome = None,
        }
    }

    /// Whether it may have made a queue ready.
    pub(super) fn makes_ready(&self) -> bool {
        match self {
            Self::Push(push) => matches!(push.outcome, Some(Ok(PushOutcome::Accepted))),
            Self::Claim(_) | Self::Cancel(_) => false,
            Self::Settle(settle) => {
                matches!(settle.work.action, SettleOperation::Retry { .. })
                    && matches!(settle.outcome, Some(Ok(SettleOutcome::Settled)))
            }
        }
    }

    /// The order in which locks are taken on PostgreSQL; commands on one queue are adjacent.
    pub(super) fn lock_order(&self) -> (Option<&QueueName>, Option<RequestId>) {
        match self {
            Self::Push(push) => (Some(&push.work.queue), None),
            Self::Claim(claim) => (Some(&claim.work.queue), None),
            Self::Settle(settle) => (None, Some(settle.work.claim.request_id)),
            Self::Cancel(_) => (None, None),
        }
    }

    pub(super) fn lock_scope(&self) -> LockScope {
        match self {
            Self::Push(_) => LockScope::Queue,
            Self::Claim(_) | Self::Cancel(_) => LockScope::EventsAndQueue,
            Self::Settle(settle) => match settle.work.action {
                SettleOperation::Extend { .. } | SettleOperation::End { .. } => LockScope::Events,
                SettleOperation::Retry { .. } => LockScope::EventsAndQueue,
            },
        }
    }

    /// The event of a push.
    pub(super) fn event(&self) -> Option<&NewEvent> {
        match self {
            Self::Push(push) => Some(&push.work),
            Self::Claim(_) | Self::Settle(_) | Self::Cancel(_) => None,
        }
    }

    pub(super) fn as_push(&mut self) -> Option<&mut PendingCommand<NewEvent, PushOutcome>> {
        match self {
            Self::Push(push) => Some(push),
            Self::Claim(_) | Self::Settle(_) | Self::Cancel(_) => None,
        }
    }

    /// The end that it brings to its event, if that is what it does.
    pub(super) fn completion(&self) -> Option<Completion<'_>> {
        match self {
            Self::Settle(settle) => settle.work.completion(),
            Self::Push(_) | Self::Claim(_) | Self::Cancel(_) => None,
        }
    }

    /// Whether it is an end that is yet to be written.
    pub(super) fn is_pending_end(&self) -> bool {
        match self {
            Self::Settle(settle) => settle.outcome.is_none() && settle.work.completion().is_some(),
            Self::Push(_) | Self::Claim(_) | Self::Cancel(_) => false,
        }
    }

    /// Notes that the event's end was written.
    pub(super) fn set_completed(&mut self) {
        if let Self::Settle(settle) = self
            && matches!(settle.work.action, SettleOperation::End { .. })
        {
            settle.outcome = Some(Ok(SettleOutcome::Settled));
        }
    }
}

/// Separates a command's own refusal (inner) from a failure of the transaction (outer).
pub(super) fn separate_refusal<T>(
    result: Result<T, QueueError>,
) -> Result<Result<T, QueueError>, QueueError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error @ (QueueError::Full { .. } | QueueError::Stale(_))) => Ok(Err(error)),
        Err(error @ (QueueError::Unavailable(_) | QueueError::Internal(_))) => Err(error),
    }
}
