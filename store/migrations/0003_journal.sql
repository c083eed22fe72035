-- Records and logs of calls, for several nodes; one node keeps them in files instead. Trimmed by
-- age and by number.
CREATE TABLE journal (
    -- Given out under the counter's row lock, so that no lower number appears after a higher one
    -- was seen: readers go on from the last they saw.
    seq BIGINT PRIMARY KEY,
    namespace TEXT NOT NULL,
    function TEXT NOT NULL,
    request_id TEXT,
    -- Microseconds since 1970.
    time BIGINT NOT NULL,
    -- 1 output, 2 record.
    kind BIGINT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX journal_by_function ON journal (namespace, function, seq);
CREATE INDEX journal_by_request ON journal (request_id, seq);
CREATE INDEX journal_by_time ON journal (time);
INSERT INTO counters (name, value) VALUES ('journal', 0);
