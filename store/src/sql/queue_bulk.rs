//! Many pushes, or many ends, in a few statements. What is out of the ordinary (a queue that is
//! nearly full, a request id that is there already, a claim that is not the newest) is left to
//! the one-by-one way of `queue_write`, which says what becomes of each.

use std::collections::{BTreeMap, BTreeSet};

use hanshu_core::ports::{NewEvent, PushOutcome, QueueError, QueueName};
use hanshu_core::{Timestamp, TriggerId};
use serde::Serialize;
use sqlx::{AnyConnection, query, query_as, query_scalar};

use super::dialect::Dialect;
use super::queue_bulk_text::{Bulk, bulk};
use crate::error::Error;
use crate::stored::{self, End};

/// What a group of the same kind came to.
#[derive(Debug)]
pub(super) enum Together<T> {
    /// Done, and what it came to.
    Done(T),
    /// Something stands in the way. The transaction is to be dropped.
    NotSo,
}

/// An event's end, as `queue_write` has it.
#[derive(Debug)]
pub(super) struct Ending<'a> {
    pub(super) key: &'a str,
    pub(super) claim: u64,
    pub(super) end: &'a End,
    pub(super) now: Timestamp,
    pub(super) line: &'a str,
}

/// A queue's part of a group of pushes.
#[derive(Debug)]
struct Part {
    max_waiting: u32,
    /// Which of the group.
    events: Vec<usize>,
    /// Of these, how many turned out to be in the queue already.
    surplus: usize,
}

/// Keeps events; for each what became of it, or nothing where that is still to be found out.
///
/// # Errors
/// The transaction is to be dropped.
pub(super) async fn push(
    tx: &mut AnyConnection,
    dialect: Dialect,
    events: &[&NewEvent],
) -> Result<Together<Vec<Option<PushOutcome>>>, QueueError> {
    let bulk = bulk(dialect);
    let mut outcomes = vec![None; events.len()];
    let mut parts = parts_of(events);
    let numbers = admit(tx, &bulk, &parts).await?;
    parts.retain(|queue, _| numbers.contains_key(&queue.to_string()));
    let fresh = raise(tx, &bulk, events, &parts).await?;
    let mut kept = Rows::default();
    for (queue, part) in &mut parts {
        let Some(last) = numbers.get(&queue.to_string()) else { continue };
        let first = last - i64::try_from(part.events.len()).unwrap_or(0) + 1;
        for (seq, index) in (first..).zip(&part.events) {
            let Some(event) = events.get(*index) else { continue };
            let is_fresh = event.tick.as_ref().is_none_or(|tick| fresh.contains(&tick.trigger));
            let outcome = if is_fresh { PushOutcome::Accepted } else { PushOutcome::Duplicate };
            match outcome {
                PushOutcome::Accepted => kept.add(event, seq)?,
                PushOutcome::Duplicate => part.surplus += 1,
            }
            if let Some(slot) = outcomes.get_mut(*index) {
                *slot = Some(outcome);
            }
        }
    }
    if !kept.keep(tx, &bulk).await? {
        return Ok(Together::NotSo);
    }
    dismiss(tx, &bulk, &parts).await?;
    Ok(Together::Done(outcomes))
}

/// Each queue with its events; without what one statement cannot do: two limits of one queue, or
/// two ticks of one timer.
fn parts_of<'a>(events: &[&'a NewEvent]) -> BTreeMap<&'a QueueName, Part> {
    let mut parts: BTreeMap<_, Part> = BTreeMap::new();
    let mut ticking = BTreeSet::new();
    for (index, event) in events.iter().enumerate() {
        let max_waiting = event.max_waiting;
        let part = parts.entry(&event.queue);
        let part = part.or_insert(Part { max_waiting, events: Vec::new(), surplus: 0 });
        let ticks = event.tick.as_ref().is_none_or(|tick| ticking.insert(&tick.trigger));
        if part.max_waiting == max_waiting && ticks {
            part.events.push(index);
        }
    }
    parts.retain(|_, part| !part.events.is_empty());
    parts
}

/// Makes room; gives the number of each queue's last event, for the queues that had room for all.
async fn admit(
    tx: &mut AnyConnection,
    bulk: &Bulk,
    parts: &BTreeMap<&QueueName, Part>,
) -> Result<BTreeMap<String, i64>, QueueError> {
    // In the order of names, as everybody locks them.
    let rows: Vec<_> = parts
        .iter()
        .map(|(queue, part)| (queue.to_string(), part.max_waiting, part.events.len()))
        .collect();
    let admitted = query_as(bulk.admit).bind(json(&rows)?).fetch_all(tx).await;
    let admitted: Vec<(String, i64)> = admitted.map_err(Error::from)?;
    Ok(admitted.into_iter().collect())
}

/// Moves the timers' marks; gives those whose tick is a new one.
async fn raise(
    tx: &mut AnyConnection,
    bulk: &Bulk,
    events: &[&NewEvent],
    parts: &BTreeMap<&QueueName, Part>,
) -> Result<BTreeSet<TriggerId>, QueueError> {
    let all = parts.values().flat_map(|part| &part.events).filter_map(|index| events.get(*index));
    let ticks: BTreeMap<String, _> = all
        .filter_map(|event| event.tick.as_ref())
        .map(|tick| (tick.trigger.to_string(), tick))
        .collect();
    if ticks.is_empty() {
        return Ok(BTreeSet::new());
    }
    let rows: Vec<_> = ticks.iter().map(|(id, tick)| (id, tick.at.as_microsecond())).collect();
    let raised = query_scalar(bulk.tick).bind(json(&rows)?).fetch_all(tx).await;
    let raised: Vec<String> = raised.map_err(Error::from)?;
    let fresh = raised.iter().filter_map(|id| ticks.get(id)).map(|tick| tick.trigger.clone());
    Ok(fresh.collect())
}

/// Gives back the room that was made for ticks which are in their queue already.
async fn dismiss(
    tx: &mut AnyConnection,
    bulk: &Bulk,
    parts: &BTreeMap<&QueueName, Part>,
) -> Result<(), QueueError> {
    let surplus = parts.iter().filter(|(_, part)| 0 < part.surplus);
    let rows: Vec<_> = surplus.map(|(queue, part)| (queue.to_string(), part.surplus)).collect();
    if !rows.is_empty() {
        query(bulk.dismiss).bind(json(&rows)?).execute(tx).await.map_err(Error::from)?;
    }
    Ok(())
}

/// request id, queue, seq, version, revision, origin, accepted, expires, offset, bytes
type Row<'a> = (String, String, i64, String, &'a str, String, i64, i64, usize, usize);

/// Events on their way into the table.
#[derive(Debug, Default)]
struct Rows<'a> {
    rows: Vec<Row<'a>>,
    payloads: Vec<u8>,
}

impl<'a> Rows<'a> {
    fn add(&mut self, event: &'a NewEvent, seq: i64) -> Result<(), QueueError> {
        let payload = &event.event.payload;
        self.rows.push((
            event.request_id.to_string(),
            event.queue.to_string(),
            seq,
            event.version.to_string(),
            event.revision.as_str(),
            stored::origin_text(&event.event.origin)?,
            event.accepted_at.as_microsecond(),
            event.expires_at.as_microsecond(),
            self.payloads.len(),
            payload.len(),
        ));
        self.payloads.extend_from_slice(payload);
        Ok(())
    }

    /// Whether all of them are kept now.
    async fn keep(self, tx: &mut AnyConnection, bulk: &Bulk) -> Result<bool, QueueError> {
        if self.rows.is_empty() {
            return Ok(true);
        }
        let keep = query(bulk.keep).bind(json(&self.rows)?).bind(self.payloads);
        let kept = keep.execute(tx).await.map_err(Error::from)?.rows_affected();
        Ok(usize::try_from(kept).is_ok_and(|kept| kept == self.rows.len()))
    }
}

/// Ends events.
///
/// # Errors
/// The transaction is to be dropped.
pub(super) async fn end(
    tx: &mut AnyConnection,
    dialect: Dialect,
    endings: &[Ending<'_>],
) -> Result<Together<()>, QueueError> {
    let rows: Vec<_> = endings
        .iter()
        .map(|ending| {
            let End { state, result, error } = ending.end;
            let claim = i64::try_from(ending.claim).unwrap_or(i64::MAX);
            let now = ending.now.as_microsecond();
            (ending.key, claim, state.as_str(), now, ending.line, result, error)
        })
        .collect();
    let ended = query(bulk(dialect).end).bind(json(&rows)?).execute(tx).await;
    let ended = ended.map_err(Error::from)?.rows_affected();
    // A key that is there twice is ended once, and counted once: not so, then.
    match usize::try_from(ended).is_ok_and(|ended| ended == rows.len()) {
        true => Ok(Together::Done(())),
        false => Ok(Together::NotSo),
    }
}

fn json(rows: &impl Serialize) -> Result<String, QueueError> {
    serde_json::to_string(rows).map_err(|error| QueueError::Internal(error.to_string()))
}
