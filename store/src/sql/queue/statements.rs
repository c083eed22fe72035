//! The queue's statements. An event waits in state `queued` or `retrying`, is held in `running`;
//! the partial indexes of those states are written here as in the migration, word for word.

use crate::sql::dialect::Dialect;

/// Counts and numbers a new event; no row if the queue is full.
pub(super) const ADMIT: &str = "
INSERT INTO queues (name, waiting, accepted) VALUES ($1, 1, 1)
ON CONFLICT (name) DO UPDATE SET waiting = queues.waiting + 1, accepted = queues.accepted + 1
  WHERE queues.waiting < $2
RETURNING accepted";

/// The number of events that wait in a queue.
pub(super) const WAITING: &str = "
SELECT waiting FROM queues WHERE name = $1";

/// Changes the number of events that wait in a queue.
pub(super) const CHANGE_WAITING: &str = "
UPDATE queues SET waiting = waiting + $2 WHERE name = $1";

/// Counts an event that waits again, even if its queue's row was deleted as empty.
pub(super) const READMIT: &str = "
INSERT INTO queues (name, waiting, accepted) VALUES ($1, 1, 1)
ON CONFLICT (name) DO UPDATE SET waiting = queues.waiting + 1";

/// Advances a timer's watermark; no row if the tick is not later.
pub(super) const ADVANCE_TICK_WATERMARK: &str = "
INSERT INTO queue_ticks (trigger_id, at) VALUES ($1, $2)
ON CONFLICT (trigger_id) DO UPDATE SET at = excluded.at WHERE queue_ticks.at < excluded.at";

/// A timer's watermark: the last tick that was queued.
pub(super) const TICK_WATERMARK: &str = "
SELECT at FROM queue_ticks WHERE trigger_id = $1";

/// Inserts an event; no row if its request id is stored already.
pub(super) const INSERT_EVENT: &str = "
INSERT INTO queue_events (request_id, queue, seq, version, revision, origin, accepted_at,
  expires_at, state, due_at, held_until, claims, ran, attempts, begun, payload, rerun_of)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'queued', $7, 0, 0, 0, '', '', $9, $10)
ON CONFLICT (request_id) DO NOTHING";

/// Ends every hold.
pub(super) const RELEASE: &str = "
UPDATE queue_events SET held_until = 0 WHERE state = 'running'";

/// Claims events whose hold ran out.
const CLAIM_LAPSED_SQLITE: &str = "
UPDATE queue_events SET held_until = $2, claims = claims + 1, ran = ran + 1,
  attempts = attempts || begun, begun = $3
WHERE request_id IN (
  SELECT request_id FROM queue_events
  WHERE queue = $1 AND state = 'running' AND held_until <= $4
  ORDER BY held_until, seq LIMIT $5)
RETURNING request_id, version, revision, origin, accepted_at, expires_at, due_at, seq, claims,
  ran, payload, cancel_requested";

/// Claims events that are due.
const CLAIM_DUE_SQLITE: &str = "
UPDATE queue_events SET state = 'running', held_until = $2, claims = claims + 1, ran = ran + 1,
  attempts = attempts || begun, begun = $3
WHERE request_id IN (
  SELECT request_id FROM queue_events
  WHERE queue = $1 AND state IN ('queued', 'retrying') AND due_at <= $4
  ORDER BY due_at, seq LIMIT $5)
RETURNING request_id, version, revision, origin, accepted_at, expires_at, due_at, seq, claims,
  ran, payload, cancel_requested";

/// As for SQLite, but events that another claimer has locked are skipped, not waited for.
/// Materialised, so that the limit is applied once.
const CLAIM_LAPSED_POSTGRES: &str = "
WITH taken AS MATERIALIZED (
  SELECT request_id FROM queue_events
  WHERE queue = $1 AND state = 'running' AND held_until <= $4
  ORDER BY held_until, seq LIMIT $5 FOR UPDATE SKIP LOCKED)
UPDATE queue_events AS e SET held_until = $2, claims = claims + 1, ran = ran + 1,
  attempts = attempts || begun, begun = $3
FROM taken WHERE e.request_id = taken.request_id
RETURNING e.request_id, version, revision, origin, accepted_at, expires_at, due_at, seq, claims,
  ran, payload, cancel_requested";

/// Claims events that are due, as [`CLAIM_LAPSED_POSTGRES`] does for those whose hold ran out.
const CLAIM_DUE_POSTGRES: &str = "
WITH taken AS MATERIALIZED (
  SELECT request_id FROM queue_events
  WHERE queue = $1 AND state IN ('queued', 'retrying') AND due_at <= $4
  ORDER BY due_at, seq LIMIT $5 FOR UPDATE SKIP LOCKED)
UPDATE queue_events AS e SET state = 'running', held_until = $2, claims = claims + 1,
  ran = ran + 1, attempts = attempts || begun, begun = $3
FROM taken WHERE e.request_id = taken.request_id
RETURNING e.request_id, version, revision, origin, accepted_at, expires_at, due_at, seq, claims,
  ran, payload, cancel_requested";

/// Extends a hold; returns whether somebody asked to cancel the event.
pub(super) const EXTEND: &str = "
UPDATE queue_events SET held_until = $3
WHERE request_id = $1 AND claims = $2 AND state = 'running' RETURNING cancel_requested";

/// Puts an event back after an attempt that ran, unless somebody asked to cancel it.
pub(super) const RETRY: &str = "
UPDATE queue_events SET state = 'retrying', due_at = $3, attempts = attempts || $4, begun = ''
WHERE request_id = $1 AND claims = $2 AND state = 'running' AND cancel_requested = 0";

/// Puts an event back after a refusal, unless somebody asked to cancel it: the attempt did not
/// happen.
pub(super) const REFUSE: &str = "
UPDATE queue_events SET
  state = CASE WHEN attempts = '' THEN 'queued' ELSE 'retrying' END,
  due_at = $3, ran = ran - 1, begun = ''
WHERE request_id = $1 AND claims = $2 AND state = 'running' AND cancel_requested = 0";

/// Whether somebody asked to cancel a held event; no row if the claim is not the newest.
pub(super) const CANCEL_REQUESTED: &str = "
SELECT cancel_requested FROM queue_events
WHERE request_id = $1 AND claims = $2 AND state = 'running'";

/// Ends an event; its payload is dropped.
pub(super) const END: &str = "
UPDATE queue_events SET state = $3, ended_at = $4, attempts = attempts || $5, begun = '',
  result = $6, error = $7, payload = $8
WHERE request_id = $1 AND claims = $2 AND state = 'running'";

/// Ends one that waits; returns its queue.
pub(super) const CANCEL: &str = "
UPDATE queue_events SET state = 'cancelled', ended_at = $2, payload = $3
WHERE request_id = $1 AND state IN ('queued', 'retrying') RETURNING queue";

/// Stores that somebody asked to cancel a held event.
pub(super) const REQUEST_CANCEL: &str = "
UPDATE queue_events SET cancel_requested = $2 WHERE request_id = $1 AND state = 'running'";

/// The state of one event, in a word; the event stays as it is until the transaction ends.
const LOCK_STATE_SQLITE: &str = "
SELECT state FROM queue_events WHERE request_id = $1";

/// As for SQLite, which has one writer at a time.
const LOCK_STATE_POSTGRES: &str = "
SELECT state FROM queue_events WHERE request_id = $1 FOR UPDATE";

/// The state of one event.
pub(super) const STATE: &str = "
SELECT queue, version, origin, state, attempts, begun, accepted_at, ended_at, result, error,
  rerun_of
FROM queue_events WHERE request_id = $1";

/// Queues that have something to claim, now or later, earliest first. Goes from one queue's first
/// entry in the index to the next queue's: what it costs depends on how many queues hold
/// something, not on how many events wait in them.
pub(super) const READY: &str = "
WITH RECURSIVE waiting(queue) AS (
  SELECT MIN(queue) FROM queue_events WHERE state IN ('queued', 'retrying')
  UNION ALL
  SELECT (SELECT MIN(e.queue) FROM queue_events AS e
    WHERE e.state IN ('queued', 'retrying') AND waiting.queue < e.queue)
  FROM waiting WHERE waiting.queue IS NOT NULL),
held(queue) AS (
  SELECT MIN(queue) FROM queue_events WHERE state = 'running'
  UNION ALL
  SELECT (SELECT MIN(e.queue) FROM queue_events AS e
    WHERE e.state = 'running' AND held.queue < e.queue)
  FROM held WHERE held.queue IS NOT NULL),
firsts(queue, moment) AS (
  SELECT waiting.queue, (SELECT MIN(e.due_at) FROM queue_events AS e
    WHERE e.state IN ('queued', 'retrying') AND e.queue = waiting.queue)
  FROM waiting WHERE waiting.queue IS NOT NULL
  UNION ALL
  SELECT held.queue, (SELECT MIN(e.held_until) FROM queue_events AS e
    WHERE e.state = 'running' AND e.queue = held.queue)
  FROM held WHERE held.queue IS NOT NULL)
SELECT queue, MIN(moment) AS moment FROM firsts WHERE moment IS NOT NULL
GROUP BY queue ORDER BY 2, 1 LIMIT $1";

/// Per queue: how many wait, and when the oldest of them was accepted.
pub(super) const COUNT_WAITING: &str = "
SELECT queue, COUNT(*) AS events, MIN(accepted_at) AS oldest FROM queue_events
WHERE state IN ('queued', 'retrying') GROUP BY queue";

/// Per queue: how many are held.
pub(super) const COUNT_HELD: &str = "
SELECT queue, COUNT(*) AS events FROM queue_events WHERE state = 'running' GROUP BY queue";

/// Per queue: how many are dead-lettered.
pub(super) const COUNT_DEAD_LETTERED: &str = "
SELECT queue, COUNT(*) AS events FROM queue_events
WHERE state IN ('failed', 'expired') GROUP BY queue";

/// Drops events that ended before a time, at most so many.
const COLLECT_SQLITE: &str = "
DELETE FROM queue_events WHERE request_id IN (
  SELECT request_id FROM queue_events WHERE ended_at IS NOT NULL AND ended_at < $1
  ORDER BY ended_at LIMIT $2)";

/// As for SQLite; rows that another collector has locked are skipped.
const COLLECT_POSTGRES: &str = "
DELETE FROM queue_events WHERE request_id IN (
  SELECT request_id FROM queue_events WHERE ended_at IS NOT NULL AND ended_at < $1
  ORDER BY ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)";

/// Drops the rows of queues that are empty; a push makes them again.
const COLLECT_QUEUES_SQLITE: &str = "
DELETE FROM queues WHERE waiting = 0 AND NOT EXISTS (
  SELECT 1 FROM queue_events AS e WHERE e.queue = queues.name AND e.state = 'running')";

/// As for SQLite; rows that are locked are skipped, since pushes lock several in their own order.
const COLLECT_QUEUES_POSTGRES: &str = "
DELETE FROM queues WHERE name IN (
  SELECT name FROM queues WHERE waiting = 0 AND NOT EXISTS (
    SELECT 1 FROM queue_events AS e WHERE e.queue = queues.name AND e.state = 'running')
  FOR UPDATE SKIP LOCKED)";

/// Revisions named by events that have not ended.
pub(super) const PINNED: &str = "
SELECT revision FROM queue_events WHERE state IN ('queued', 'retrying')
UNION
SELECT revision FROM queue_events WHERE state = 'running'";

/// The statements with which a database claims.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClaimStatements {
    /// Claims events whose hold ran out.
    pub(super) lapsed: &'static str,
    /// Claims waiting events that are due.
    pub(super) due: &'static str,
}

/// The statements with which a database drops ended events.
#[derive(Clone, Copy, Debug)]
pub(super) struct CollectStatements {
    pub(super) events: &'static str,
    pub(super) empty_queues: &'static str,
}

pub(super) fn claims(dialect: Dialect) -> ClaimStatements {
    match dialect {
        Dialect::Sqlite => ClaimStatements { lapsed: CLAIM_LAPSED_SQLITE, due: CLAIM_DUE_SQLITE },
        Dialect::Postgres => {
            ClaimStatements { lapsed: CLAIM_LAPSED_POSTGRES, due: CLAIM_DUE_POSTGRES }
        }
    }
}

pub(super) fn collects(dialect: Dialect) -> CollectStatements {
    match dialect {
        Dialect::Sqlite => {
            CollectStatements { events: COLLECT_SQLITE, empty_queues: COLLECT_QUEUES_SQLITE }
        }
        Dialect::Postgres => {
            CollectStatements { events: COLLECT_POSTGRES, empty_queues: COLLECT_QUEUES_POSTGRES }
        }
    }
}

pub(super) fn lock_state(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => LOCK_STATE_SQLITE,
        Dialect::Postgres => LOCK_STATE_POSTGRES,
    }
}

/// Every statement of the queue.
pub(super) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let (claim, collect) = (claims(dialect), collects(dialect));
    vec![
        ADMIT,
        WAITING,
        CHANGE_WAITING,
        READMIT,
        ADVANCE_TICK_WATERMARK,
        TICK_WATERMARK,
        INSERT_EVENT,
        RELEASE,
        claim.lapsed,
        claim.due,
        EXTEND,
        RETRY,
        REFUSE,
        END,
        CANCEL_REQUESTED,
        CANCEL,
        REQUEST_CANCEL,
        lock_state(dialect),
        STATE,
        READY,
        COUNT_WAITING,
        COUNT_HELD,
        COUNT_DEAD_LETTERED,
        collect.events,
        collect.empty_queues,
        PINNED,
    ]
}
