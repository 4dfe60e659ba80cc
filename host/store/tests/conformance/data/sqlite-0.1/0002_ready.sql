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
-- Payloads and results that are small lie in the job's row; others in tables of their own, so that a change of state never
-- rewrites them.
ALTER TABLE jobs ADD COLUMN payload BLOB;
-- What the last attempt cost: lengths are microseconds.
ALTER TABLE jobs ADD COLUMN queue_wait INTEGER;
ALTER TABLE jobs ADD COLUMN guest INTEGER;
ALTER TABLE jobs ADD COLUMN wall INTEGER;
ALTER TABLE jobs ADD COLUMN memory_peak INTEGER;
ALTER TABLE jobs ADD COLUMN bytes_in INTEGER;
ALTER TABLE jobs ADD COLUMN bytes_out INTEGER;
ALTER TABLE jobs ADD COLUMN output BLOB;
-- Room for what the end of an attempt adds to the row: one that keeps its size is overwritten where it lies.
ALTER TABLE jobs ADD COLUMN room BLOB;
UPDATE jobs SET queue_wait = ends.queue_wait, guest = ends.guest, wall = ends.wall, memory_peak = ends.memory_peak,
        bytes_in = ends.bytes_in, bytes_out = ends.bytes_out
    FROM ends WHERE ends.job = jobs.id;
CREATE TABLE outputs (
    job INTEGER PRIMARY KEY,
    output BLOB NOT NULL
);
INSERT INTO outputs SELECT job, output FROM ends WHERE output IS NOT NULL;
-- How the last unsuccessful attempt ended.
CREATE TABLE reports (
    job INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    report TEXT NOT NULL
);
INSERT INTO reports SELECT job, kind, report FROM ends WHERE kind IS NOT NULL;
DROP TABLE ends;
