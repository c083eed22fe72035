//! What changes the queue: each command as statements within the caller's transaction.
//!
//! Lock order on PostgreSQL, so that no deadlock can happen: pushes lock queues' rows in the order
//! of names, each followed by its timer's, and never wait for an event that is locked; every other
//! command locks events first, several in the order of their ids, and a queue's row last.

use std::time::Duration;

use hanshu_core::ports::{
    CancelOutcome, Claim, NewEvent, PushOutcome, QueueError, QueueName, TimerTick,
};
use hanshu_core::{InvocationState, NodeId, RequestId, Timestamp};
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::batch::Completion;
use super::rows::ClaimedEventRow;
use super::statements as text;
use crate::claim_token::ClaimToken;
use crate::sql::dialect::Dialect;
use crate::sql::ended_events;
use crate::sql::error::DatabaseError;
use crate::stored::{self, StoredEventEnd, StoredNewEvent};

/// A claim of several events.
#[derive(Debug)]
pub(super) struct ClaimCommand {
    pub(super) queue: QueueName,
    pub(super) max: usize,
    pub(super) hold: Duration,
    pub(super) node: NodeId,
    pub(super) now: Timestamp,
}

/// What is to be done to a claimed event.
#[derive(Debug)]
pub(super) struct SettleCommand {
    pub(super) claim: ClaimToken,
    pub(super) action: SettleOperation,
}

impl SettleCommand {
    /// The end that it brings to its event, if that is what it does.
    pub(super) fn completion(&self) -> Option<Completion<'_>> {
        match &self.action {
            SettleOperation::End { end, now, line } => {
                Some(Completion { claim: self.claim, end, now: *now, line })
            }
            SettleOperation::Extend { .. } | SettleOperation::Retry { .. } => None,
        }
    }
}

/// What became of a claimed event that was to be settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettleOutcome {
    /// It was extended, put back or ended.
    Settled,
    /// Somebody asked to cancel it. It was extended, but is not put back.
    CancelRequested,
}

/// The ways to settle. `line` is the finished attempt, empty if there was none.
#[derive(Debug)]
pub(super) enum SettleOperation {
    Extend { until_us: i64 },
    Retry { queue: QueueName, due: Timestamp, line: String },
    End { end: StoredEventEnd, now: Timestamp, line: String },
}

/// Inserts an event.
///
/// # Errors
/// [`QueueError::Full`], after which nothing has changed; else the transaction is to be rolled
/// back.
pub(super) async fn push(
    tx: &mut AnyConnection,
    event: &NewEvent,
) -> Result<PushOutcome, QueueError> {
    let stored = StoredNewEvent::of(event)?;
    let Some(seq) = admit(tx, &stored.queue, event.max_waiting).await? else {
        if let Some(tick) = &event.tick
            && is_queued(tx, tick).await?
        {
            return Ok(PushOutcome::Duplicate);
        }
        let waiting: Option<i64> = query_scalar(text::WAITING)
            .bind(&stored.queue)
            .fetch_optional(tx)
            .await
            .map_err(DatabaseError::from)?;
        let waiting = waiting.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        return Err(QueueError::Full { queue: event.queue.clone(), waiting });
    };
    if let Some(tick) = &event.tick
        && !advance_tick_watermark(tx, tick).await?
    {
        change_waiting(tx, &stored.queue, -1).await?;
        return Ok(PushOutcome::Duplicate);
    }
    let kept = query(text::INSERT_EVENT)
        .bind(stored.request_id)
        .bind(&stored.queue)
        .bind(seq)
        .bind(stored.version)
        .bind(stored.revision)
        .bind(stored.origin)
        .bind(stored.accepted_us)
        .bind(stored.expires_us)
        .bind(stored.payload.to_vec())
        .bind(stored.rerun_of)
        .execute(&mut *tx)
        .await
        .map_err(DatabaseError::from)?;
    if kept.rows_affected() == 0 {
        // The same request id again: the first push succeeded, though its answer was lost.
        change_waiting(tx, &stored.queue, -1).await?;
    }
    Ok(PushOutcome::Accepted)
}

/// Counts a new event and returns its number; `None` if the queue is full.
async fn admit(
    tx: &mut AnyConnection,
    queue: &str,
    max_waiting: u32,
) -> Result<Option<i64>, DatabaseError> {
    if max_waiting == 0 {
        return Ok(None);
    }
    let admit = query_scalar(text::ADMIT).bind(queue).bind(i64::from(max_waiting));
    Ok(admit.fetch_optional(tx).await?)
}

/// Whether the tick, or a later one, was queued before.
async fn is_queued(tx: &mut AnyConnection, tick: &TimerTick) -> Result<bool, DatabaseError> {
    let mark: Option<i64> = query_scalar(text::TICK_WATERMARK)
        .bind(tick.trigger.to_string())
        .fetch_optional(tx)
        .await?;
    Ok(mark.is_some_and(|mark| tick.at.as_microsecond() <= mark))
}

/// Advances the timer's watermark; false if the tick is not later.
async fn advance_tick_watermark(
    tx: &mut AnyConnection,
    tick: &TimerTick,
) -> Result<bool, DatabaseError> {
    let advance = query(text::ADVANCE_TICK_WATERMARK)
        .bind(tick.trigger.to_string())
        .bind(tick.at.as_microsecond());
    Ok(advance.execute(tx).await?.rows_affected() == 1)
}

async fn change_waiting(tx: &mut AnyConnection, queue: &str, by: i64) -> Result<(), DatabaseError> {
    query(text::CHANGE_WAITING).bind(queue).bind(by).execute(tx).await?;
    Ok(())
}

/// Claims events whose hold ran out, then events that are due.
pub(super) async fn claim(
    tx: &mut AnyConnection,
    dialect: Dialect,
    claim: &ClaimCommand,
) -> Result<Vec<Claim>, QueueError> {
    let statements = text::claims(dialect);
    let mut claims = claim_by(tx, statements.lapsed, claim, claim.max).await?;
    let room = claim.max - claims.len().min(claim.max);
    if 0 < room {
        let due = claim_by(tx, statements.due, claim, room).await?;
        if !due.is_empty() {
            let fewer = i64::try_from(due.len()).unwrap_or(0);
            change_waiting(tx, &claim.queue.to_string(), -fewer).await?;
        }
        claims.extend(due);
    }
    Ok(claims)
}

async fn claim_by(
    tx: &mut AnyConnection,
    statement: &'static str,
    claim: &ClaimCommand,
    max: usize,
) -> Result<Vec<Claim>, QueueError> {
    let begun = stored::begun_line(claim.now, &claim.node)?;
    let mut rows: Vec<ClaimedEventRow> = query_as(statement)
        .bind(claim.queue.to_string())
        .bind(stored::hold_end(claim.now, claim.hold))
        .bind(begun)
        .bind(claim.now.as_microsecond())
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(tx)
        .await
        .map_err(DatabaseError::from)?;
    // Neither database promises the order of the rows that an update returns.
    rows.sort_by_key(|row| (row.due_at, row.seq));
    rows.into_iter().map(|row| row.into_stored()?.into_claim(&claim.queue)).collect()
}

/// An event that is to be cancelled.
#[derive(Debug)]
pub(super) struct CancelCommand {
    pub(super) request_id: RequestId,
    pub(super) now: Timestamp,
}

/// Ends an event that waits as cancelled; stores the request where it is held.
pub(super) async fn cancel(
    tx: &mut AnyConnection,
    dialect: Dialect,
    cancel: &CancelCommand,
) -> Result<CancelOutcome, QueueError> {
    let (id, now_us) = (cancel.request_id.to_string(), cancel.now.as_microsecond());
    // The lock of the ends' counter comes before that of the event.
    ended_events::lock(tx).await?;
    let state = query_scalar(text::lock_state(dialect)).bind(&id).fetch_optional(&mut *tx).await;
    let state: Option<String> = state.map_err(DatabaseError::from)?;
    let Some(state) = state else { return Ok(CancelOutcome::Unknown) };
    match stored::read_state(&id, &state)? {
        InvocationState::Queued | InvocationState::Retrying => {
            ended_events::record_cancelled(tx, dialect, &id, now_us).await?;
            let ended = query_scalar(text::CANCEL).bind(&id).bind(now_us).bind(Vec::<u8>::new());
            let queue: String = ended.fetch_one(&mut *tx).await.map_err(DatabaseError::from)?;
            change_waiting(tx, &queue, -1).await?;
            Ok(CancelOutcome::Cancelled)
        }
        InvocationState::Running => {
            let request = query(text::REQUEST_CANCEL).bind(&id).bind(now_us).execute(tx).await;
            request.map_err(DatabaseError::from)?;
            Ok(CancelOutcome::Requested)
        }
        ended @ (InvocationState::Succeeded
        | InvocationState::Failed
        | InvocationState::Expired
        | InvocationState::Cancelled) => Ok(CancelOutcome::Ended(ended)),
    }
}

/// Extends, retries or ends.
///
/// # Errors
/// [`QueueError::Stale`], after which nothing has changed; else the transaction is to be rolled
/// back.
pub(super) async fn settle(
    tx: &mut AnyConnection,
    dialect: Dialect,
    settle: &SettleCommand,
) -> Result<SettleOutcome, QueueError> {
    let SettleCommand { claim: ClaimToken { request_id, claim }, action } = settle;
    if let Some(completion) = settle.completion()
        && ended_events::record(tx, dialect, &[completion.to_record()]).await? == 0
    {
        return Err(stale(&request_id.to_string()));
    }
    let (key, claim) = (&request_id.to_string(), i64::from(*claim));
    let statement = match action {
        SettleOperation::Extend { until_us } => {
            let extended = query_scalar(text::EXTEND).bind(key).bind(claim).bind(*until_us);
            let requested = extended.fetch_optional(tx).await.map_err(DatabaseError::from)?;
            return requested.map_or_else(|| Err(stale(key)), |at| Ok(cancel_request(at)));
        }
        SettleOperation::Retry { due, line, .. } if line.is_empty() => {
            query(text::REFUSE).bind(key).bind(claim).bind(due.as_microsecond())
        }
        SettleOperation::Retry { due, line, .. } => {
            query(text::RETRY).bind(key).bind(claim).bind(due.as_microsecond()).bind(line)
        }
        SettleOperation::End { end, now, line } => query(text::END)
            .bind(key)
            .bind(claim)
            .bind(end.state.as_str())
            .bind(now.as_microsecond())
            .bind(line)
            .bind(end.result.as_deref())
            .bind(end.error.as_deref())
            .bind(Vec::<u8>::new()),
    };
    let changed = statement.execute(&mut *tx).await.map_err(DatabaseError::from)?.rows_affected();
    match action {
        SettleOperation::Retry { .. } if changed == 0 => {
            let requested = query_scalar(text::CANCEL_REQUESTED).bind(key).bind(claim);
            let requested = requested.fetch_optional(tx).await.map_err(DatabaseError::from)?;
            return match requested.map(cancel_request) {
                Some(SettleOutcome::CancelRequested) => Ok(SettleOutcome::CancelRequested),
                Some(SettleOutcome::Settled) | None => Err(stale(key)),
            };
        }
        SettleOperation::Extend { .. } | SettleOperation::End { .. } if changed == 0 => {
            return Err(stale(key));
        }
        SettleOperation::Retry { queue, .. } => {
            let readmit = query(text::READMIT).bind(queue.to_string());
            readmit.execute(tx).await.map_err(DatabaseError::from)?;
        }
        SettleOperation::Extend { .. } | SettleOperation::End { .. } => {}
    }
    Ok(SettleOutcome::Settled)
}

/// What the column says: when somebody asked to cancel the event, or 0.
fn cancel_request(requested_at: i64) -> SettleOutcome {
    if requested_at == 0 { SettleOutcome::Settled } else { SettleOutcome::CancelRequested }
}

fn stale(request_id: &str) -> QueueError {
    QueueError::Stale(request_id.into())
}
