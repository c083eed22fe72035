//! What changes the queue: each command as statements within somebody's transaction.
//!
//! Locks on PostgreSQL are taken such that nobody waits in a circle: pushes take queues' rows in the
//! order of names, each followed by its timer's, and never wait for an event that others hold;
//! everything else takes events first, several in the order of their ids, and a queue's row last.

use std::time::Duration;

use hanshu_core::ports::{Claim, NewEvent, PushOutcome, QueueError, QueueName, Receipt, TimerTick};
use hanshu_core::{NodeId, Timestamp};
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::dialect::Dialect;
use super::queue_text as text;
use crate::error::Error;
use crate::stored::{self, End, unreadable};

/// A claim of several events.
#[derive(Debug)]
pub(super) struct Take {
    pub(super) queue: QueueName,
    pub(super) max: usize,
    pub(super) hold: Duration,
    pub(super) node: NodeId,
    pub(super) now: Timestamp,
}

/// What is to be done to a claimed event.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) key: String,
    pub(super) claim: u64,
    pub(super) how: How,
}

/// The ways to settle.
#[derive(Debug)]
pub(super) enum How {
    /// Hold it until then.
    Extend(i64),
    /// Put it back until `due`; `line` is the finished attempt, empty if the try cost none.
    Retry { queue: QueueName, due: Timestamp, line: String },
    /// It is over.
    End { end: End, now: Timestamp, line: String },
}

/// request id, version, revision, origin, accepted, expires, due, seq, claims, ran, payload
type Row = (String, String, String, String, i64, i64, i64, i64, i64, i64, Vec<u8>);

/// Keeps an event.
///
/// # Errors
/// [`QueueError::Full`], after which nothing has changed; else the transaction is to be dropped.
pub(super) async fn push(
    tx: &mut AnyConnection,
    event: &NewEvent,
) -> Result<PushOutcome, QueueError> {
    let name = event.queue.to_string();
    let Some(seq) = admit(tx, &name, event.max_waiting).await? else {
        if let Some(tick) = &event.tick
            && is_queued(tx, tick).await?
        {
            return Ok(PushOutcome::Duplicate);
        }
        let waiting: Option<i64> = query_scalar(text::WAITING)
            .bind(&name)
            .fetch_optional(tx)
            .await
            .map_err(Error::from)?;
        let waiting = waiting.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        return Err(QueueError::Full { queue: event.queue.clone(), waiting });
    };
    if let Some(tick) = &event.tick
        && !raise(tx, tick).await?
    {
        count(tx, &name, -1).await?;
        return Ok(PushOutcome::Duplicate);
    }
    let kept = query(text::KEEP)
        .bind(event.request_id.to_string())
        .bind(&name)
        .bind(seq)
        .bind(event.version.to_string())
        .bind(event.revision.as_str())
        .bind(stored::origin_text(&event.event.origin)?)
        .bind(event.accepted_at.as_microsecond())
        .bind(event.expires_at.as_microsecond())
        .bind(event.event.payload.to_vec())
        .execute(&mut *tx)
        .await
        .map_err(Error::from)?;
    if kept.rows_affected() == 0 {
        // The same request id once more: the first push was kept, though its answer was lost.
        count(tx, &name, -1).await?;
    }
    Ok(PushOutcome::Accepted)
}

/// Makes room for an event and gives its number, or nothing if there is no room.
async fn admit(
    tx: &mut AnyConnection,
    queue: &str,
    max_waiting: u32,
) -> Result<Option<i64>, Error> {
    if max_waiting == 0 {
        return Ok(None);
    }
    let admit = query_scalar(text::ADMIT).bind(queue).bind(i64::from(max_waiting));
    Ok(admit.fetch_optional(tx).await?)
}

async fn is_queued(tx: &mut AnyConnection, tick: &TimerTick) -> Result<bool, Error> {
    let mark: Option<i64> =
        query_scalar(text::MARK).bind(tick.trigger.to_string()).fetch_optional(tx).await?;
    Ok(mark.is_some_and(|mark| tick.at.as_microsecond() <= mark))
}

async fn raise(tx: &mut AnyConnection, tick: &TimerTick) -> Result<bool, Error> {
    let raise = query(text::TICK).bind(tick.trigger.to_string()).bind(tick.at.as_microsecond());
    Ok(raise.execute(tx).await?.rows_affected() == 1)
}

async fn count(tx: &mut AnyConnection, queue: &str, by: i64) -> Result<(), Error> {
    query(text::COUNT).bind(queue).bind(by).execute(tx).await?;
    Ok(())
}

/// Claims what lapsed, then what is due.
pub(super) async fn take(
    tx: &mut AnyConnection,
    dialect: Dialect,
    take: &Take,
) -> Result<Vec<Claim>, QueueError> {
    let (lapsed, due) = text::claims(dialect);
    let mut claims = take_by(tx, lapsed, take, take.max).await?;
    let room = take.max - claims.len().min(take.max);
    if 0 < room {
        let fresh = take_by(tx, due, take, room).await?;
        if !fresh.is_empty() {
            let fewer = i64::try_from(fresh.len()).unwrap_or(0);
            count(tx, &take.queue.to_string(), -fewer).await?;
        }
        claims.extend(fresh);
    }
    Ok(claims)
}

async fn take_by(
    tx: &mut AnyConnection,
    statement: &'static str,
    take: &Take,
    max: usize,
) -> Result<Vec<Claim>, QueueError> {
    let mut rows: Vec<Row> = query_as(statement)
        .bind(take.queue.to_string())
        .bind(stored::hold_end(take.now, take.hold))
        .bind(stored::begun(take.now, &take.node)?)
        .bind(take.now.as_microsecond())
        .bind(i64::try_from(max).unwrap_or(i64::MAX))
        .fetch_all(tx)
        .await
        .map_err(Error::from)?;
    // Neither database promises the order of what an update returns.
    rows.sort_by_key(|row| (row.6, row.7));
    rows.into_iter().map(|row| claim_of(row, &take.queue)).collect()
}

fn claim_of(row: Row, queue: &QueueName) -> Result<Claim, QueueError> {
    let (key, version, revision, origin, accepted, expires, _, _, claims, ran, payload) = row;
    let id = key.as_str();
    Ok(Claim {
        request_id: id.parse().map_err(|error| unreadable(id, error))?,
        queue: queue.clone(),
        version: version.parse().map_err(|error| unreadable(id, error))?,
        revision: Some(revision.parse().map_err(|error| unreadable(id, error))?),
        payload: payload.into(),
        origin: serde_json::from_str(&origin).map_err(|error| unreadable(id, error))?,
        attempt: u32::try_from(ran).map_err(|error| unreadable(id, error))?,
        tries: u32::try_from(claims).map_err(|error| unreadable(id, error))?,
        accepted_at: stored::time(accepted)?,
        expires_at: stored::time(expires)?,
        receipt: Receipt { claim: u64::try_from(claims).unwrap_or(0), key },
    })
}

/// Extends, retries or ends.
///
/// # Errors
/// [`QueueError::Stale`], after which nothing has changed; else the transaction is to be dropped.
pub(super) async fn settle(tx: &mut AnyConnection, settle: &Settle) -> Result<(), QueueError> {
    let Settle { key, claim, how } = settle;
    let claim = i64::try_from(*claim).unwrap_or(i64::MAX);
    let statement = match how {
        How::Extend(until) => query(text::EXTEND).bind(key).bind(claim).bind(*until),
        How::Retry { due, line, .. } if line.is_empty() => {
            query(text::REFUSE).bind(key).bind(claim).bind(due.as_microsecond())
        }
        How::Retry { due, line, .. } => {
            query(text::RETRY).bind(key).bind(claim).bind(due.as_microsecond()).bind(line)
        }
        How::End { end, now, line } => query(text::END)
            .bind(key)
            .bind(claim)
            .bind(end.state.as_str())
            .bind(now.as_microsecond())
            .bind(line)
            .bind(end.result.as_deref())
            .bind(end.error.as_deref())
            .bind(Vec::<u8>::new()),
    };
    let changed = statement.execute(&mut *tx).await.map_err(Error::from)?.rows_affected();
    if changed == 0 {
        return Err(QueueError::Stale(key.clone()));
    }
    match how {
        How::Retry { queue, .. } => {
            let again = query(text::READMIT).bind(queue.to_string());
            again.execute(tx).await.map_err(Error::from)?;
        }
        How::Extend(_) | How::End { .. } => {}
    }
    Ok(())
}
