-- What tasks and groups are called. Few, and never removed.
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

-- One small row per job, rewritten as the job moves on; what is large lies in `payloads` and `ends`.
-- A lane is (grp, key); a job without a key has the empty one.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,             -- 0 delayed, 1 ready, 2 running, 3 succeeded, 4 failed, 5 cancelled
    grp INTEGER NOT NULL,
    key TEXT NOT NULL,
    task INTEGER NOT NULL,
    line INTEGER,                       -- of `lines`; only means something in state 1
    priority INTEGER NOT NULL,
    due INTEGER NOT NULL,               -- moments are microseconds since 1970
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    cancel_asked INTEGER NOT NULL DEFAULT 0,
    enqueued_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    node INTEGER,                       -- of the lease, as is the next one; both only mean something in state 2
    lease_until INTEGER,
    token TEXT,
    batch INTEGER,                      -- of which durable broadcast it is, and the topic of that; null in all other jobs
    topic TEXT,
    bytes INTEGER NOT NULL              -- of the payload
);

-- Each index holds only the jobs that its question is about: a job is in one or two of them at a time.
CREATE INDEX jobs_ready ON jobs (line, priority DESC, due) WHERE state = 1;
CREATE INDEX jobs_running ON jobs (grp, key) WHERE state = 2;
CREATE INDEX jobs_delayed ON jobs (due) WHERE state = 0;
CREATE INDEX jobs_delayed_lane ON jobs (grp, key, task, due) WHERE state = 0;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state >= 3;
CREATE INDEX jobs_unsuccessful ON jobs (state) WHERE state >= 4;
CREATE INDEX jobs_batch ON jobs (batch) WHERE batch IS NOT NULL;
CREATE UNIQUE INDEX jobs_token ON jobs (token, task) WHERE token IS NOT NULL;

CREATE TABLE payloads (
    job INTEGER PRIMARY KEY,
    payload BLOB NOT NULL
);

-- What ended attempts left on their job: how the last unsuccessful one ended, what the last one cost, the result.
CREATE TABLE ends (
    job INTEGER PRIMARY KEY,
    kind TEXT,
    report TEXT,
    queue_wait INTEGER,                 -- lengths are microseconds
    guest INTEGER,
    wall INTEGER,
    memory_peak INTEGER,
    bytes_in INTEGER,
    bytes_out INTEGER,
    output BLOB
);

-- One row for each task of a lane that has ready jobs: what a claim looks at instead of the jobs.
-- `turn` and `open` are the lane's, the same in all its lines. A closed lane had no slot when last looked at.
-- Jobs name their line by number: lines that come to be together are served together, and so lie together on the disk,
-- however many keys there are.
CREATE TABLE lines (
    id INTEGER PRIMARY KEY,
    grp INTEGER NOT NULL,
    key TEXT NOT NULL,
    task INTEGER NOT NULL,
    top INTEGER NOT NULL,
    turn INTEGER NOT NULL,
    open INTEGER NOT NULL,
    UNIQUE (grp, key, task)
);
CREATE INDEX lines_open ON lines (task, top DESC, turn) WHERE open = 1;

CREATE TABLE entries (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,              -- 0 chunk, 1 stdout, 2 stderr, 3 lines dropped, 4 progress
    amount REAL,                        -- lines dropped, or the fraction done
    data BLOB,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

CREATE TABLE overrides (
    grp TEXT NOT NULL,
    key TEXT NOT NULL,                  -- empty for the whole group
    per_key INTEGER,
    total INTEGER,
    PRIMARY KEY (grp, key)
) WITHOUT ROWID;

-- The highest id of a job that was forgotten: ids are never used twice.
CREATE TABLE last_forgotten (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id INTEGER NOT NULL
);
