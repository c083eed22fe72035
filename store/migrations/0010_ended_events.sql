-- What ended, for whoever wants to hear of it, and the history that is made from it. One text for
-- SQLite and PostgreSQL: times are BIGINT microseconds since 1970 (UTC).

-- Ended events in the order in which readers see them, written in the transaction that settles
-- them (or moved here from Redis). Trimmed behind the slowest reader.
CREATE TABLE ended_events (
    -- Given out under the counter's row lock, so that no lower number appears after a higher one
    -- was seen.
    seq BIGINT PRIMARY KEY,
    request_id TEXT NOT NULL,
    queue TEXT NOT NULL,
    version TEXT NOT NULL,
    revision TEXT NOT NULL,
    origin TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    state TEXT NOT NULL,
    -- Lines of JSON.
    attempts TEXT NOT NULL,
    error TEXT,
    rerun_of TEXT,
    -- What the function was given.
    payload BYTEA NOT NULL
);
CREATE INDEX ended_events_by_request ON ended_events (request_id);
INSERT INTO counters (name, value) VALUES ('ended_events', 0);

-- How far each reader has read.
CREATE TABLE ended_readers (
    name TEXT PRIMARY KEY,
    -- The last number it has dealt with.
    position BIGINT NOT NULL
);
INSERT INTO ended_readers (name, position) VALUES ('history', 0);

-- The history of ended asynchronous events, bounded by age and by number. A page is at most one
-- range of one of these indexes for each state that an event can end in.
CREATE TABLE history (
    request_id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL,
    function TEXT NOT NULL,
    -- Empty for direct calls.
    trigger TEXT NOT NULL,
    origin TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    ended_at BIGINT NOT NULL,
    attempts TEXT NOT NULL,
    error TEXT,
    rerun_of TEXT
);
CREATE INDEX history_by_namespace ON history (namespace, state, ended_at, request_id);
CREATE INDEX history_by_function ON history (namespace, function, state, ended_at, request_id);
CREATE INDEX history_by_trigger
    ON history (namespace, function, trigger, state, ended_at, request_id);
CREATE INDEX history_by_time ON history (ended_at);

-- What the events were given, for running them again: bounded by age and by bytes.
CREATE TABLE history_inputs (
    request_id TEXT PRIMARY KEY,
    ended_at BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    payload BYTEA NOT NULL
);
CREATE INDEX history_inputs_by_time ON history_inputs (ended_at, bytes);

-- The event that this one runs again.
ALTER TABLE queue_events ADD COLUMN rerun_of TEXT;
-- Not 0 once somebody asked to cancel a running event: it is not retried, and not run again.
ALTER TABLE queue_events ADD COLUMN cancel_requested BIGINT NOT NULL DEFAULT 0;
