//! Many pushes, or many ends, in a few statements. Exceptions (a queue that is nearly full, a
//! request id that is stored already, a claim that is not the newest) are left to `transactions`,
//! which handles each command by itself.
//!
//! Each statement is a hop to the thread that has SQLite, or a round trip to PostgreSQL. One
//! statement for each event made these hops most of what accepting and ending an event cost.

use std::collections::{BTreeMap, BTreeSet};

use hanshu_core::ports::{NewEvent, PushOutcome, QueueError, QueueName};
use hanshu_core::{ErrorCause, Timestamp, TriggerId};
use serde::{Serialize, Serializer};
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::batch_statements::{BatchStatements, batch_statements};
use super::rows::AdmittedQueueRow;
use crate::claim_token::ClaimToken;
use crate::sql::dialect::Dialect;
use crate::sql::ended_events::{self, EndToRecord};
use crate::sql::error::DatabaseError;
use crate::stored::{StoredEventEnd, StoredNewEvent};

/// The result of a batch.
#[derive(Debug)]
pub(super) enum BulkOutcome<T> {
    Done(T),
    /// There is an exception among the commands: the transaction is to be rolled back, and the
    /// commands are to be carried out one by one.
    Fallback,
}

/// The end of a claimed event.
#[derive(Debug)]
pub(super) struct Completion<'a> {
    pub(super) claim: ClaimToken,
    pub(super) end: &'a StoredEventEnd,
    pub(super) now: Timestamp,
    /// The finished attempt.
    pub(super) line: &'a str,
}

impl Completion<'_> {
    /// As the stream of ended events takes it.
    pub(super) fn to_record(&self) -> EndToRecord<'_> {
        EndToRecord {
            claim: self.claim,
            state: self.end.state.as_str(),
            now_us: self.now.as_microsecond(),
            line: self.line,
            error: self.end.error.as_deref(),
        }
    }
}

/// The pushes of a batch that go to one queue.
#[derive(Debug)]
struct QueuePushes {
    max_waiting: u32,
    /// Their indices in the batch.
    events: Vec<usize>,
    /// How many of these turned out to be queued already.
    duplicates: usize,
}

/// Stores events; returns for each what became of it, or `None` where the batch leaves it to
/// `transactions`.
///
/// # Errors
/// The transaction is to be rolled back.
pub(super) async fn push(
    tx: &mut AnyConnection,
    dialect: Dialect,
    events: &[&NewEvent],
) -> Result<BulkOutcome<Vec<Option<PushOutcome>>>, QueueError> {
    let statements = batch_statements(dialect);
    let mut outcomes = vec![None; events.len()];
    let mut queues = group_by_queue(events);
    let last_numbers = admit(tx, &statements, &queues).await?;
    queues.retain(|queue, _| last_numbers.contains_key(&queue.to_string()));
    let fresh = advance_tick_watermarks(tx, &statements, events, &queues).await?;
    let mut rows = EventRows::default();
    for (queue, pushes) in &mut queues {
        let Some(last) = last_numbers.get(&queue.to_string()) else { continue };
        let first = last - i64::try_from(pushes.events.len()).unwrap_or(0) + 1;
        for (seq, index) in (first..).zip(&pushes.events) {
            let Some(event) = events.get(*index) else { continue };
            let is_fresh = event.tick.as_ref().is_none_or(|tick| fresh.contains(&tick.trigger));
            let outcome = if is_fresh { PushOutcome::Accepted } else { PushOutcome::Duplicate };
            match outcome {
                PushOutcome::Accepted => rows.add(event, seq)?,
                PushOutcome::Duplicate => pushes.duplicates += 1,
            }
            if let Some(slot) = outcomes.get_mut(*index) {
                *slot = Some(outcome);
            }
        }
    }
    if !rows.insert(tx, &statements).await? {
        return Ok(BulkOutcome::Fallback);
    }
    release_room(tx, &statements, &queues).await?;
    Ok(BulkOutcome::Done(outcomes))
}

/// Each queue with its events; without what one statement cannot do: two limits of one queue, or
/// two ticks of one timer.
fn group_by_queue<'a>(events: &[&'a NewEvent]) -> BTreeMap<&'a QueueName, QueuePushes> {
    let mut queues: BTreeMap<_, QueuePushes> = BTreeMap::new();
    let mut ticking = BTreeSet::new();
    for (index, event) in events.iter().enumerate() {
        let max_waiting = event.max_waiting;
        let pushes = queues.entry(&event.queue);
        let pushes =
            pushes.or_insert(QueuePushes { max_waiting, events: Vec::new(), duplicates: 0 });
        let ticks = event.tick.as_ref().is_none_or(|tick| ticking.insert(&tick.trigger));
        if pushes.max_waiting == max_waiting && ticks {
            pushes.events.push(index);
        }
    }
    queues.retain(|_, pushes| !pushes.events.is_empty());
    queues
}

/// Counts the events of every queue that has room for all of its events; returns the number of
/// each such queue's last event.
async fn admit(
    tx: &mut AnyConnection,
    statements: &BatchStatements,
    queues: &BTreeMap<&QueueName, QueuePushes>,
) -> Result<BTreeMap<String, i64>, QueueError> {
    // In the order of names, in which every transaction locks them.
    let rows: Vec<_> = queues
        .iter()
        .map(|(queue, pushes)| (queue.to_string(), pushes.max_waiting, pushes.events.len()))
        .collect();
    let admitted = query_as(statements.admit).bind(to_json(&rows)?).fetch_all(tx).await;
    let admitted: Vec<AdmittedQueueRow> = admitted.map_err(DatabaseError::from)?;
    Ok(admitted.into_iter().map(|row| (row.name, row.accepted)).collect())
}

/// Advances the timers' watermarks; returns the timers whose tick is later than the watermark was.
async fn advance_tick_watermarks(
    tx: &mut AnyConnection,
    statements: &BatchStatements,
    events: &[&NewEvent],
    queues: &BTreeMap<&QueueName, QueuePushes>,
) -> Result<BTreeSet<TriggerId>, QueueError> {
    let indices = queues.values().flat_map(|pushes| &pushes.events);
    let ticks: BTreeMap<String, _> = indices
        .filter_map(|index| events.get(*index)?.tick.as_ref())
        .map(|tick| (tick.trigger.to_string(), tick))
        .collect();
    if ticks.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows: Vec<_> = ticks.iter().map(|(id, tick)| (id, tick.at.as_microsecond())).collect();
    let advanced = query_scalar(statements.advance_tick_watermarks).bind(to_json(&rows)?);
    let advanced: Vec<String> = advanced.fetch_all(tx).await.map_err(DatabaseError::from)?;
    let fresh = advanced.iter().filter_map(|id| ticks.get(id)).map(|tick| tick.trigger.clone());
    Ok(fresh.collect())
}

/// Subtracts from the queues' counts the ticks that were queued already.
async fn release_room(
    tx: &mut AnyConnection,
    statements: &BatchStatements,
    queues: &BTreeMap<&QueueName, QueuePushes>,
) -> Result<(), QueueError> {
    let surplus = queues.iter().filter(|(_, pushes)| 0 < pushes.duplicates);
    let rows: Vec<_> =
        surplus.map(|(queue, pushes)| (queue.to_string(), pushes.duplicates)).collect();
    if !rows.is_empty() {
        let release = query(statements.release_room).bind(to_json(&rows)?);
        release.execute(tx).await.map_err(DatabaseError::from)?;
    }
    Ok(())
}

/// An event to be inserted; as JSON an array in the order that the statement reads.
#[derive(Debug)]
struct NewEventRow<'a> {
    event: StoredNewEvent<'a>,
    seq: i64,
    /// Where its payload is in the batch's payloads.
    payload_offset: usize,
}

impl Serialize for NewEventRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = (
            &self.event.request_id,
            &self.event.queue,
            self.seq,
            &self.event.version,
            self.event.revision,
            &self.event.origin,
            self.event.accepted_us,
            self.event.expires_us,
            self.payload_offset,
            self.event.payload.len(),
            &self.event.rerun_of,
        );
        row.serialize(serializer)
    }
}

/// Events to be inserted, and their payloads one after the other.
#[derive(Debug, Default)]
struct EventRows<'a> {
    rows: Vec<NewEventRow<'a>>,
    payloads: Vec<u8>,
}

impl<'a> EventRows<'a> {
    fn add(&mut self, event: &'a NewEvent, seq: i64) -> Result<(), QueueError> {
        let event = StoredNewEvent::of(event)?;
        let (payload, payload_offset) = (event.payload, self.payloads.len());
        self.payloads.extend_from_slice(payload);
        self.rows.push(NewEventRow { event, seq, payload_offset });
        Ok(())
    }

    /// Inserts them; false if some were stored already.
    async fn insert(
        self,
        tx: &mut AnyConnection,
        statements: &BatchStatements,
    ) -> Result<bool, QueueError> {
        if self.rows.is_empty() {
            return Ok(true);
        }
        let insert = query(statements.insert_events).bind(to_json(&self.rows)?).bind(self.payloads);
        let inserted = insert.execute(tx).await.map_err(DatabaseError::from)?.rows_affected();
        Ok(usize::try_from(inserted).is_ok_and(|inserted| inserted == self.rows.len()))
    }
}

/// Ends events.
///
/// # Errors
/// The transaction is to be rolled back.
pub(super) async fn end(
    tx: &mut AnyConnection,
    dialect: Dialect,
    completions: &[Completion<'_>],
) -> Result<BulkOutcome<()>, QueueError> {
    let ends: Vec<_> = completions.iter().map(Completion::to_record).collect();
    if ended_events::record(tx, dialect, &ends).await? != ends.len() as u64 {
        return Ok(BulkOutcome::Fallback);
    }
    let rows: Vec<_> = completions
        .iter()
        .map(|completion| {
            let StoredEventEnd { state, result, error } = completion.end;
            let ClaimToken { request_id, claim } = completion.claim;
            let now = completion.now.as_microsecond();
            (request_id, claim, state.as_str(), now, completion.line, result, error)
        })
        .collect();
    let end = query(batch_statements(dialect).end_events).bind(to_json(&rows)?);
    let ended = end.execute(tx).await.map_err(DatabaseError::from)?.rows_affected();
    // An event that is there twice is ended and counted once, which is a fallback too.
    match usize::try_from(ended).is_ok_and(|ended| ended == rows.len()) {
        true => Ok(BulkOutcome::Done(())),
        false => Ok(BulkOutcome::Fallback),
    }
}

fn to_json(rows: &impl Serialize) -> Result<String, QueueError> {
    serde_json::to_string(rows).map_err(|error| QueueError::Internal(ErrorCause::new(error)))
}
