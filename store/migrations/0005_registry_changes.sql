-- Which function each of the newest changes of the registry was about, written where the counter
-- is raised: readers that know a counter read what changed since, not everything. Trimmed by
-- number; a reader that finds a gap reads everything.
CREATE TABLE registry_changes (
    -- The registry's counter as the change left it.
    counter BIGINT PRIMARY KEY,
    -- Both NULL for a change that is about no function (access keys).
    namespace TEXT,
    function TEXT
);
