-- The ready jobs, in the order in which they start. A line is the part of a lane that belongs to one task; lines are known
-- by number, so that those that come to be together, and so are served together, lie together on the disk.
CREATE TABLE ready (
    line INTEGER NOT NULL,
    rank INTEGER NOT NULL,              -- the priority turned over: the lowest is first
    due INTEGER NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (line, rank, due, id)
) WITHOUT ROWID;
INSERT INTO ready SELECT line, -priority, due, id FROM jobs WHERE state = 1 ORDER BY line, priority DESC, due, id;

-- A line's number is the turn at which its lane joined the others. Here stand those whose lane has another turn since.
CREATE TABLE turns (
    line INTEGER PRIMARY KEY,
    turn INTEGER NOT NULL
);
INSERT INTO turns SELECT min(id), turn + (SELECT max(id) FROM lines) FROM lines GROUP BY grp, key;

-- What a claim took, in one row: the number of each job and its attempt, 12 bytes each. Such a job runs, though its own row
-- says that it is ready, until that is written for another reason: a short attempt ends before.
CREATE TABLE claims (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL,
    claimed_at INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    jobs BLOB NOT NULL
);

DROP TABLE lines;
DROP INDEX jobs_ready;
ALTER TABLE jobs DROP COLUMN line;
-- Small payloads; others stand in `payloads`.
ALTER TABLE jobs ADD COLUMN payload BLOB;
