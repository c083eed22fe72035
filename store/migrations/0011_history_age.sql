-- For dropping old events. Of an expression, so that a page of the history cannot be read by it:
-- PostgreSQL took it for pages of rare events and read the whole table.
DROP INDEX history_by_time;
CREATE INDEX history_by_age ON history ((ended_at + 0));
