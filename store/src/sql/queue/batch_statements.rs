//! The queue's statements for many rows, which are one JSON array of arrays in one parameter.

use crate::sql::dialect::Dialect;

/// The statements of one database.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchStatements {
    /// Rows `[queue, limit, events]`, ordered by queue, each queue once: counts all events of a
    /// queue or, where there is no room for all of them, none. Returns the queue and the number of
    /// the last event. (A new row starts to count at its limit: that is how the limit reaches the
    /// place where it is compared.)
    pub(super) admit: &'static str,
    /// Rows `[queue, events]`: subtracts from the counts.
    pub(super) release_room: &'static str,
    /// Rows `[trigger, time]`, each trigger once: advances watermarks. Returns the triggers whose
    /// tick is later than the watermark was.
    pub(super) advance_tick_watermarks: &'static str,
    /// Rows `[request id, queue, seq, version, revision, origin, accepted, expires, offset,
    /// bytes, rerun of]`, and all payloads one after the other: inserts events.
    pub(super) insert_events: &'static str,
    /// Rows `[request id, claim, state, now, attempt's line, result, error]`: ends events.
    pub(super) end_events: &'static str,
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

const RELEASE_ROOM_SQLITE: &str = "
UPDATE queues SET waiting = waiting - (gone.value->>1)
FROM json_each($1) AS gone WHERE name = gone.value->>0";

const RELEASE_ROOM_POSTGRES: &str = "
UPDATE queues SET waiting = waiting - (gone.value->>1)::bigint
FROM json_array_elements($1::text::json) AS gone WHERE name = gone.value->>0";

const ADVANCE_TICKS_SQLITE: &str = "
INSERT INTO queue_ticks (trigger_id, at)
SELECT value->>0, value->>1 FROM json_each($1) WHERE true
ON CONFLICT (trigger_id) DO UPDATE SET at = excluded.at WHERE queue_ticks.at < excluded.at
RETURNING trigger_id";

const ADVANCE_TICKS_POSTGRES: &str = "
INSERT INTO queue_ticks (trigger_id, at)
SELECT value->>0, (value->>1)::bigint FROM json_array_elements($1::text::json)
ON CONFLICT (trigger_id) DO UPDATE SET at = excluded.at WHERE queue_ticks.at < excluded.at
RETURNING trigger_id";

const INSERT_EVENTS_SQLITE: &str = "
INSERT INTO queue_events (request_id, queue, seq, version, revision, origin, accepted_at,
  expires_at, state, due_at, held_until, claims, ran, attempts, begun, payload, rerun_of)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7,
  'queued', value->>6, 0, 0, 0, '', '', substr($2, (value->>8) + 1, value->>9), value->>10
FROM json_each($1) WHERE true
ON CONFLICT (request_id) DO NOTHING";

const INSERT_EVENTS_POSTGRES: &str = "
INSERT INTO queue_events (request_id, queue, seq, version, revision, origin, accepted_at,
  expires_at, state, due_at, held_until, claims, ran, attempts, begun, payload, rerun_of)
SELECT value->>0, value->>1, (value->>2)::bigint, value->>3, value->>4, value->>5,
  (value->>6)::bigint, (value->>7)::bigint, 'queued', (value->>6)::bigint, 0, 0, 0, '', '',
  substring($2::bytea FROM (value->>8)::int + 1 FOR (value->>9)::int), value->>10
FROM json_array_elements($1::text::json)
ON CONFLICT (request_id) DO NOTHING";

const END_EVENTS_SQLITE: &str = "
UPDATE queue_events SET state = ended.value->>2, ended_at = ended.value->>3,
  attempts = attempts || (ended.value->>4), begun = '', result = ended.value->>5,
  error = ended.value->>6, payload = X''
FROM json_each($1) AS ended
WHERE request_id = ended.value->>0 AND claims = ended.value->>1 AND state = 'running'";

/// The events are locked in the order of their ids.
const END_EVENTS_POSTGRES: &str = "
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

const SQLITE: BatchStatements = BatchStatements {
    admit: ADMIT_SQLITE,
    release_room: RELEASE_ROOM_SQLITE,
    advance_tick_watermarks: ADVANCE_TICKS_SQLITE,
    insert_events: INSERT_EVENTS_SQLITE,
    end_events: END_EVENTS_SQLITE,
};

const POSTGRES: BatchStatements = BatchStatements {
    admit: ADMIT_POSTGRES,
    release_room: RELEASE_ROOM_POSTGRES,
    advance_tick_watermarks: ADVANCE_TICKS_POSTGRES,
    insert_events: INSERT_EVENTS_POSTGRES,
    end_events: END_EVENTS_POSTGRES,
};

/// The statements for a database.
pub(super) fn batch_statements(dialect: Dialect) -> BatchStatements {
    match dialect {
        Dialect::Sqlite => SQLITE,
        Dialect::Postgres => POSTGRES,
    }
}

/// Every statement for batches.
pub(super) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let all = batch_statements(dialect);
    vec![
        all.admit,
        all.release_room,
        all.advance_tick_watermarks,
        all.insert_events,
        all.end_events,
    ]
}
