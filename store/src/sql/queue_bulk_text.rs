//! The queue's statements that do one thing to many rows, which come as one JSON array of arrays.
//! Each row costs a look-up then, not a round trip to the thread or process that has the database.

use super::dialect::Dialect;

/// The statements of one database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    /// Rows `[queue, limit, events]`, ordered by queue, each queue once: makes room for all of a
    /// queue's events or, where there is not room for all of them, for none. Gives the queue and
    /// the number of the last event. (A row that is new begins to count at its limit, which is
    /// how the limit comes to the place where it is compared.)
    pub(super) admit: &'static str,
    /// Rows `[queue, events]`: gives room back.
    pub(super) dismiss: &'static str,
    /// Rows `[trigger, time]`, each trigger once: moves high-water marks. Gives the triggers whose
    /// tick is later than their mark.
    pub(super) tick: &'static str,
    /// Rows `[request id, queue, seq, version, revision, origin, accepted, expires, offset,
    /// bytes]`, and all payloads one after the other: keeps events.
    pub(super) keep: &'static str,
    /// Rows `[request id, claim, state, now, attempt's line, result, error]`: ends events.
    pub(super) end: &'static str,
}

const ADMIT_SQLITE: &str = "
INSERT INTO queues (name, waiting, accepted)
SELECT value->>0, value->>2, value->>1 FROM json_each($1)
WHERE value->>2 <= value->>1
ON CONFLICT (name) DO UPDATE
  SET waiting = queues.waiting + excluded.waiting, accepted = queues.accepted + excluded.waiting
  WHERE queues.waiting + excluded.waiting <= excluded.accepted
RETURNING name, accepted";

const ADMIT_POSTGRES: &str = "
INSERT INTO queues (name, waiting, accepted)
SELECT value->>0, (value->>2)::bigint, (value->>1)::bigint FROM json_array_elements($1::text::json)
WHERE (value->>2)::bigint <= (value->>1)::bigint
ON CONFLICT (name) DO UPDATE
  SET waiting = queues.waiting + excluded.waiting, accepted = queues.accepted + excluded.waiting
  WHERE queues.waiting + excluded.waiting <= excluded.accepted
RETURNING name, accepted";

const DISMISS_SQLITE: &str = "
UPDATE queues SET waiting = waiting - (gone.value->>1)
FROM json_each($1) AS gone WHERE name = gone.value->>0";

const DISMISS_POSTGRES: &str = "
UPDATE queues SET waiting = waiting - (gone.value->>1)::bigint
FROM json_array_elements($1::text::json) AS gone WHERE name = gone.value->>0";

const TICK_SQLITE: &str = "
INSERT INTO queue_ticks (trigger_id, at)
SELECT value->>0, value->>1 FROM json_each($1) WHERE true
ON CONFLICT (trigger_id) DO UPDATE SET at = excluded.at WHERE queue_ticks.at < excluded.at
RETURNING trigger_id";

const TICK_POSTGRES: &str = "
INSERT INTO queue_ticks (trigger_id, at)
SELECT value->>0, (value->>1)::bigint FROM json_array_elements($1::text::json)
ON CONFLICT (trigger_id) DO UPDATE SET at = excluded.at WHERE queue_ticks.at < excluded.at
RETURNING trigger_id";

const KEEP_SQLITE: &str = "
INSERT INTO queue_events (request_id, queue, seq, version, revision, origin, accepted_at,
  expires_at, state, due_at, held_until, claims, ran, attempts, begun, payload)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7,
  'queued', value->>6, 0, 0, 0, '', '', substr($2, (value->>8) + 1, value->>9)
FROM json_each($1) WHERE true
ON CONFLICT (request_id) DO NOTHING";

const KEEP_POSTGRES: &str = "
INSERT INTO queue_events (request_id, queue, seq, version, revision, origin, accepted_at,
  expires_at, state, due_at, held_until, claims, ran, attempts, begun, payload)
SELECT value->>0, value->>1, (value->>2)::bigint, value->>3, value->>4, value->>5,
  (value->>6)::bigint, (value->>7)::bigint, 'queued', (value->>6)::bigint, 0, 0, 0, '', '',
  substring($2::bytea FROM (value->>8)::int + 1 FOR (value->>9)::int)
FROM json_array_elements($1::text::json)
ON CONFLICT (request_id) DO NOTHING";

const END_SQLITE: &str = "
UPDATE queue_events SET state = ended.value->>2, ended_at = ended.value->>3,
  attempts = attempts || (ended.value->>4), begun = '', result = ended.value->>5,
  error = ended.value->>6, payload = X''
FROM json_each($1) AS ended
WHERE request_id = ended.value->>0 AND claims = ended.value->>1 AND state = 'running'";

/// The events are locked in the order of their ids.
const END_POSTGRES: &str = "
WITH ended AS MATERIALIZED (
  SELECT value->>0 AS id, (value->>1)::bigint AS claim, value->>2 AS state,
    (value->>3)::bigint AS at, value->>4 AS line, value->>5 AS result, value->>6 AS error
  FROM json_array_elements($1::text::json)),
ours AS MATERIALIZED (
  SELECT e.request_id FROM queue_events AS e
  JOIN ended ON e.request_id = ended.id AND e.claims = ended.claim
  WHERE e.state = 'running' ORDER BY e.request_id FOR UPDATE OF e)
UPDATE queue_events AS e SET state = ended.state, ended_at = ended.at,
  attempts = e.attempts || ended.line, begun = '', result = ended.result, error = ended.error,
  payload = ''
FROM ours JOIN ended ON ended.id = ours.request_id
WHERE e.request_id = ours.request_id";

const SQLITE: Bulk = Bulk {
    admit: ADMIT_SQLITE,
    dismiss: DISMISS_SQLITE,
    tick: TICK_SQLITE,
    keep: KEEP_SQLITE,
    end: END_SQLITE,
};

const POSTGRES: Bulk = Bulk {
    admit: ADMIT_POSTGRES,
    dismiss: DISMISS_POSTGRES,
    tick: TICK_POSTGRES,
    keep: KEEP_POSTGRES,
    end: END_POSTGRES,
};

/// The statements for a database.
pub(super) fn bulk(dialect: Dialect) -> Bulk {
    match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    }
}

/// All of them.
pub(crate) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let Bulk { admit, dismiss, tick, keep, end } = bulk(dialect);
    vec![admit, dismiss, tick, keep, end]
}
