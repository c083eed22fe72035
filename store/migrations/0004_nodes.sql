-- Which invokers there are, known by a lease that they renew. Times by the database's clock:
-- every process may have its own idea of the time.
CREATE TABLE nodes (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    memory_mb BIGINT NOT NULL,
    -- Microseconds since 1970.
    lease_until BIGINT NOT NULL
);
