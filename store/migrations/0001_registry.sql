-- Functions, revisions, versions, triggers, HTTP routes and access keys. One text for SQLite and
-- PostgreSQL: ids and JSON are TEXT, times are BIGINT microseconds since 1970 (UTC).

-- Raised by every change of the registry, in the same transaction: readers reconcile by it. The
-- row is also the lock that puts writers of several processes in a line.
CREATE TABLE counters (
    name TEXT PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('registry', 0);

CREATE TABLE functions (
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    -- The revision that `$LATEST` points to.
    latest TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, name)
);

-- Kept after they were replaced, while waiting events may still name them. Go with their function.
CREATE TABLE revisions (
    namespace TEXT NOT NULL,
    function TEXT NOT NULL,
    digest TEXT NOT NULL,
    code TEXT NOT NULL,
    config TEXT NOT NULL,
    -- When something last stopped pointing here.
    replaced_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, function, digest)
);

CREATE TABLE versions (
    namespace TEXT NOT NULL,
    function TEXT NOT NULL,
    number BIGINT NOT NULL,
    digest TEXT NOT NULL,
    published_at BIGINT NOT NULL,
    PRIMARY KEY (namespace, function, number)
);

CREATE TABLE triggers (
    namespace TEXT NOT NULL,
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    enabled BIGINT NOT NULL,
    PRIMARY KEY (namespace, function, name)
);

-- One row for each method of an HTTP trigger ('*' for any): says whose a route is. `shape` is the
-- path with its variables' names taken out, so that `/a/{x}` and `/a/{y}` meet.
CREATE TABLE routes (
    shape TEXT NOT NULL,
    method TEXT NOT NULL,
    namespace TEXT NOT NULL,
    function TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (shape, method)
);
CREATE INDEX routes_by_function ON routes (namespace, function);

CREATE TABLE access_keys (
    id TEXT PRIMARY KEY,
    sealed TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
