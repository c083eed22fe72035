//! The history's statements. Times are microseconds since 1970.

use crate::sql::dialect::Dialect;

/// Rows `[request id, namespace, function, trigger, origin, version, state, accepted, ended,
/// attempts, error, rerun of, offset, bytes]`: keeps events.
const RECORD_SQLITE: &str = "
INSERT INTO history (request_id, namespace, function, trigger, origin, version, state, accepted_at,
  ended_at, attempts, error, rerun_of)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7,
  value->>8, value->>9, value->>10, value->>11
FROM json_each($1) WHERE true
ON CONFLICT (request_id) DO NOTHING";

const RECORD_POSTGRES: &str = "
INSERT INTO history (request_id, namespace, function, trigger, origin, version, state, accepted_at,
  ended_at, attempts, error, rerun_of)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6,
  (value->>7)::bigint, (value->>8)::bigint, value->>9, value->>10, value->>11
FROM json_array_elements($1::text::json)
ON CONFLICT (request_id) DO NOTHING";

/// The same rows, and all inputs one after the other: keeps inputs.
const RECORD_INPUTS_SQLITE: &str = "
INSERT INTO history_inputs (request_id, ended_at, bytes, payload)
SELECT value->>0, value->>8, value->>13, substr($2, (value->>12) + 1, value->>13)
FROM json_each($1) WHERE true
ON CONFLICT (request_id) DO NOTHING";

const RECORD_INPUTS_POSTGRES: &str = "
INSERT INTO history_inputs (request_id, ended_at, bytes, payload)
SELECT value->>0, (value->>8)::bigint, (value->>13)::bigint,
  substring($2::bytea FROM (value->>12)::int + 1 FOR (value->>13)::int)
FROM json_array_elements($1::text::json)
ON CONFLICT (request_id) DO NOTHING";

/// Of a namespace: events in one state that ended before the cursor, and in the period.
pub(super) const PAGE_OF_NAMESPACE: &str = "
SELECT request_id, namespace, function, trigger, origin, version, state, accepted_at, ended_at,
  attempts, error, rerun_of
FROM history
WHERE namespace = $1 AND state = $2 AND (ended_at, request_id) < ($3, $4) AND ended_at >= $5
ORDER BY ended_at DESC, request_id DESC LIMIT $6";

/// As [`PAGE_OF_NAMESPACE`], of one function.
pub(super) const PAGE_OF_FUNCTION: &str = "
SELECT request_id, namespace, function, trigger, origin, version, state, accepted_at, ended_at,
  attempts, error, rerun_of
FROM history
WHERE namespace = $1 AND state = $2 AND (ended_at, request_id) < ($3, $4) AND ended_at >= $5
  AND function = $7
ORDER BY ended_at DESC, request_id DESC LIMIT $6";

/// As [`PAGE_OF_NAMESPACE`], of one trigger.
const PAGE_OF_TRIGGER_POSTGRES: &str = "
SELECT request_id, namespace, function, trigger, origin, version, state, accepted_at, ended_at,
  attempts, error, rerun_of
FROM history
WHERE namespace = $1 AND state = $2 AND (ended_at, request_id) < ($3, $4) AND ended_at >= $5
  AND function = $7 AND trigger = $8
ORDER BY ended_at DESC, request_id DESC LIMIT $6";

/// The same. SQLite, which knows nothing of how many rows there are, takes the namespace's index.
const PAGE_OF_TRIGGER_SQLITE: &str = "
SELECT request_id, namespace, function, trigger, origin, version, state, accepted_at, ended_at,
  attempts, error, rerun_of
FROM history INDEXED BY history_by_trigger
WHERE namespace = $1 AND state = $2 AND (ended_at, request_id) < ($3, $4) AND ended_at >= $5
  AND function = $7 AND trigger = $8
ORDER BY ended_at DESC, request_id DESC LIMIT $6";

/// The page of one trigger.
pub(super) fn page_of_trigger(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => PAGE_OF_TRIGGER_SQLITE,
        Dialect::Postgres => PAGE_OF_TRIGGER_POSTGRES,
    }
}

/// One event, by its request id.
pub(super) const FIND: &str = "
SELECT request_id, namespace, function, trigger, origin, version, state, accepted_at, ended_at,
  attempts, error, rerun_of
FROM history WHERE request_id = $1";

/// One event's input.
pub(super) const INPUT: &str = "
SELECT payload FROM history_inputs WHERE request_id = $1";

/// When the newest event ended that is over the number; no row if none is. The sum is that of the
/// index `history_by_age`, as in [`DROP_EVENTS`].
pub(super) const NEWEST_OVER_NUMBER: &str = "
SELECT ended_at FROM history ORDER BY ended_at + 0 DESC LIMIT 1 OFFSET $1";

/// Drops some of the events that ended at or before a time.
pub(super) const DROP_EVENTS: &str = "
DELETE FROM history WHERE request_id IN
  (SELECT request_id FROM history WHERE ended_at + 0 <= $1 ORDER BY ended_at + 0 LIMIT $2)";

/// Sum of the bytes of all inputs.
pub(super) const INPUT_BYTES: &str = "
SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM history_inputs";

/// Inputs with their sizes, the oldest first.
pub(super) const OLDEST_INPUTS: &str = "
SELECT ended_at, bytes FROM history_inputs ORDER BY ended_at LIMIT $1";

/// Drops some of the inputs of events that ended at or before a time, oldest first; returns their
/// bytes.
pub(super) const DROP_INPUTS: &str = "
DELETE FROM history_inputs WHERE request_id IN
  (SELECT request_id FROM history_inputs WHERE ended_at <= $1 ORDER BY ended_at LIMIT $2)
RETURNING bytes";

/// The statements that differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordStatements {
    pub(super) events: &'static str,
    pub(super) inputs: &'static str,
}

/// How a database keeps events and inputs.
pub(super) fn record_statements(dialect: Dialect) -> RecordStatements {
    match dialect {
        Dialect::Sqlite => RecordStatements { events: RECORD_SQLITE, inputs: RECORD_INPUTS_SQLITE },
        Dialect::Postgres => {
            RecordStatements { events: RECORD_POSTGRES, inputs: RECORD_INPUTS_POSTGRES }
        }
    }
}

/// Every statement of the history.
pub(in crate::sql) fn statements(dialect: Dialect) -> Vec<&'static str> {
    let RecordStatements { events, inputs } = record_statements(dialect);
    vec![
        events,
        inputs,
        PAGE_OF_NAMESPACE,
        PAGE_OF_FUNCTION,
        page_of_trigger(dialect),
        FIND,
        INPUT,
        NEWEST_OVER_NUMBER,
        DROP_EVENTS,
        INPUT_BYTES,
        OLDEST_INPUTS,
        DROP_INPUTS,
    ]
}
