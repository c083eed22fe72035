-- Queues of events, and the state of each event beside them. One text for SQLite and PostgreSQL:
-- times are BIGINT microseconds since 1970 (UTC).

-- Counts, so that a push need not count the waiting events to know whether there is room. A row
-- of an empty queue may be deleted.
CREATE TABLE queues (
    name TEXT PRIMARY KEY,
    waiting BIGINT NOT NULL,
    -- Numbers events in the order of their acceptance.
    accepted BIGINT NOT NULL
);

CREATE TABLE queue_events (
    request_id TEXT PRIMARY KEY,
    queue TEXT NOT NULL,
    seq BIGINT NOT NULL,
    version TEXT NOT NULL,
    revision TEXT NOT NULL,
    origin TEXT NOT NULL,
    accepted_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    -- `queued`, `running`, `retrying`, `succeeded`, `failed`, `expired`.
    state TEXT NOT NULL,
    -- While `queued` or `retrying`: not claimed before this.
    due_at BIGINT NOT NULL,
    -- While `running`: after this another may claim it.
    held_until BIGINT NOT NULL,
    ended_at BIGINT,
    -- All claims so far: the newest one's number.
    claims BIGINT NOT NULL,
    -- Those that were not refusals: the newest attempt's number.
    ran BIGINT NOT NULL,
    -- Lines of JSON: the attempts that are over, and the one that runs. Only ever appended, so
    -- that a claim of many events is one statement.
    attempts TEXT NOT NULL,
    begun TEXT NOT NULL,
    result TEXT,
    error TEXT,
    -- Emptied at the end. Last, so that it is not read on the way to another column.
    payload BYTEA NOT NULL
);

-- Every event is in exactly one of these three, which are all that dispatching reads.
CREATE INDEX queue_events_waiting ON queue_events (queue, due_at, seq, accepted_at)
    WHERE state IN ('queued', 'retrying');
CREATE INDEX queue_events_held ON queue_events (queue, held_until, seq)
    WHERE state = 'running';
CREATE INDEX queue_events_ended ON queue_events (ended_at)
    WHERE ended_at IS NOT NULL;
CREATE INDEX queue_events_buried ON queue_events (queue)
    WHERE state IN ('failed', 'expired');

-- The newest tick queued of each timer: no two nodes queue one tick twice.
CREATE TABLE queue_ticks (
    trigger_id TEXT PRIMARY KEY,
    at BIGINT NOT NULL
);
