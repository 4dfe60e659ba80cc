-- The names of tasks and groups. They are few, and never removed.
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
);

-- One row per job, rewritten as the job's state changes. Payloads and results of up to 1 KiB are in the row itself; larger
-- ones are in `payloads` and `outputs`, so that a change of state never rewrites them.
-- Moments (`_at`) are microseconds since 1970. A lane is (limit_group, key); a job without a key has the empty one.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    state INTEGER NOT NULL,             -- 0 delayed, 1 ready, 2 running, 3 succeeded, 4 failed, 5 cancelled
    limit_group INTEGER NOT NULL,       -- an id in `names`
    key TEXT NOT NULL,
    task INTEGER NOT NULL,              -- an id in `names`
    priority INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    enqueued_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    node INTEGER,                       -- the lease's node; this and the next column only mean something in state 2
    lease_expires_at INTEGER,
    token TEXT,                         -- the idempotency token
    batch INTEGER,                      -- the durable broadcast that the job belongs to; null in all other jobs
    topic TEXT,                         -- the topic of that broadcast
    tick TEXT,                          -- of a job of a schedule: its tick, the one before, and how many were missed between
    parent INTEGER,                     -- the job whose attempt enqueued this one
    generation INTEGER NOT NULL,        -- how many jobs are above it
    payload_bytes INTEGER NOT NULL,
    payload BLOB,
    queue_wait_us INTEGER,              -- this and the next five columns: what all its attempts used
    cpu_us INTEGER,
    wall_us INTEGER,
    memory_peak_bytes INTEGER,
    in_bytes INTEGER,
    out_bytes INTEGER,
    output BLOB,
    -- Free bytes for what the end of an attempt adds to the row: a row that keeps its size is overwritten in place.
    padding BLOB
);

-- Each index holds only the jobs that its query is about: a job is in one or two of them at a time.
CREATE INDEX jobs_running ON jobs (limit_group, key) WHERE state = 2;
CREATE INDEX jobs_delayed ON jobs (due_at) WHERE state = 0;
CREATE INDEX jobs_delayed_lane ON jobs (limit_group, key, task, due_at) WHERE state = 0;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state >= 3;
CREATE INDEX jobs_unsuccessful ON jobs (state) WHERE state >= 4;
CREATE INDEX jobs_parent ON jobs (parent) WHERE parent IS NOT NULL;
CREATE INDEX jobs_batch ON jobs (batch) WHERE batch IS NOT NULL;
CREATE UNIQUE INDEX jobs_token ON jobs (token, task, key) WHERE token IS NOT NULL;

CREATE TABLE payloads (
    job INTEGER PRIMARY KEY,
    payload BLOB NOT NULL
);

CREATE TABLE outputs (
    job INTEGER PRIMARY KEY,
    output BLOB NOT NULL
);

-- How the last unsuccessful attempt of a job ended, or why the job ended without one.
CREATE TABLE reports (
    job INTEGER PRIMARY KEY,
    outcome TEXT NOT NULL,
    text TEXT NOT NULL,
    fingerprint TEXT,                   -- null unless the job failed
    requeued_at INTEGER,                -- when the job last came back to wait, and when an operator last retried it
    retried_at INTEGER
);
CREATE INDEX reports_fingerprint ON reports (fingerprint, job) WHERE fingerprint IS NOT NULL;

-- The ready jobs, in the order in which they start. A line is the part of a lane that belongs to one task. Lines have
-- numbers in the order in which they are created: those created together are served together, and so are close on the disk.
CREATE TABLE ready (
    line INTEGER NOT NULL,
    rank INTEGER NOT NULL,              -- the priority, negated: the lowest rank is first
    due_at INTEGER NOT NULL,
    id INTEGER NOT NULL,
    PRIMARY KEY (line, rank, due_at, id)
) WITHOUT ROWID;

-- A line's number is the turn at which its lane joined the others. This table holds the turns of lanes that have had
-- another one since, each by the lane's first line.
CREATE TABLE turns (
    line INTEGER PRIMARY KEY,
    turn INTEGER NOT NULL
);

-- One row per claim, with the id and the attempt of each job that it leased, 12 bytes per job. Such a job runs although
-- its own row says that it is ready; that row is only rewritten for another reason, since a short attempt ends before.
CREATE TABLE claims (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL,
    claimed_at INTEGER NOT NULL,
    lease_expires_at INTEGER NOT NULL,
    jobs BLOB NOT NULL
);

-- What attempts wrote: chunks, logs and progress.
CREATE TABLE entries (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    kind INTEGER NOT NULL,              -- 0 chunk, 1 stdout, 2 stderr, 3 lines dropped, 4 progress
    amount REAL,                        -- the number of lines dropped, or the fraction done
    data BLOB,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- The attempts of each job that ended without a result: the oldest and the newest of them.
CREATE TABLE attempts (
    job INTEGER NOT NULL,
    number INTEGER NOT NULL,
    node INTEGER NOT NULL,              -- the node that had leased the job
    node_name TEXT,                     -- this and the next two columns are null if the node did not record the end
    plugin_version TEXT,
    digest TEXT,
    began_at INTEGER,
    ended_at INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    report TEXT NOT NULL,
    fingerprint TEXT,                   -- null unless the attempt failed
    queue_wait_us INTEGER,              -- this and the next five columns are null if nobody measured them
    cpu_us INTEGER,
    wall_us INTEGER,
    memory_peak_bytes INTEGER,
    in_bytes INTEGER,
    out_bytes INTEGER,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- The jobs that failed, by the fingerprint of their failures. Only a job that fails writes here and in the next four tables.
CREATE TABLE failure_groups (
    fingerprint TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    outcome TEXT NOT NULL,
    message TEXT NOT NULL,               -- without what differs from job to job
    failures INTEGER NOT NULL,
    keys INTEGER NOT NULL,                  -- how many of them are in `failure_keys`
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    state TEXT NOT NULL,                 -- open, resolved or ignored
    changed_at INTEGER,                     -- when the state changed last, and the name of the operator's token
    changed_by TEXT,
    regressed_at INTEGER                    -- when the group last came back after it was resolved
) WITHOUT ROWID;
CREATE INDEX failure_groups_of_task ON failure_groups (task, last_seen_at, fingerprint);
CREATE INDEX failure_groups_in_order ON failure_groups (last_seen_at, fingerprint);

-- The digests of the plugin that failed, for each group.
CREATE TABLE failure_versions (
    fingerprint TEXT NOT NULL,
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    failures INTEGER NOT NULL,
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    PRIMARY KEY (fingerprint, digest)
) WITHOUT ROWID;

-- The last jobs of each group. They are deleted with their jobs, since messages may contain what these are about.
CREATE TABLE failure_samples (
    fingerprint TEXT NOT NULL,
    job INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (fingerprint, job)
) WITHOUT ROWID;
CREATE INDEX failure_samples_of_job ON failure_samples (job);

-- Hashes of the keys of each group's jobs: keys are counted and not kept.
CREATE TABLE failure_keys (
    fingerprint TEXT NOT NULL,
    key_hash INTEGER NOT NULL,
    PRIMARY KEY (fingerprint, key_hash)
) WITHOUT ROWID;

-- When each digest of a plugin was loaded first by any host, which tells a regression from an upgrade that is under way.
CREATE TABLE plugin_digests (
    plugin TEXT NOT NULL,
    digest TEXT NOT NULL,
    version TEXT NOT NULL,
    first_seen_at INTEGER NOT NULL,
    PRIMARY KEY (plugin, digest)
) WITHOUT ROWID;

-- Limits that operators set in place of the declared ones.
CREATE TABLE overrides (
    limit_group TEXT NOT NULL,
    key TEXT NOT NULL,                  -- empty for the whole group
    per_key INTEGER,
    total INTEGER,
    PRIMARY KEY (limit_group, key)
) WITHOUT ROWID;

-- Jobs that an operator keeps waiting. A scope is "all", "plugin:P", "task:P/T", "group:G", "key:K" or "group:G key:K".
CREATE TABLE holds (
    scope TEXT PRIMARY KEY,
    until_at INTEGER,                   -- when the hold ends by itself; null if somebody has to release it
    reason TEXT NOT NULL,
    held_by TEXT,                       -- the name of the operator's token
    held_at INTEGER NOT NULL
) WITHOUT ROWID;

-- The acts of operators: what they changed, each written in the transaction of its change.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    acted_at INTEGER NOT NULL,
    author TEXT,                        -- the name of the operator's token, or "host:NAME"; null if the host asked for no token
    address TEXT,                       -- the network address of the client, if it is known
    act TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT NOT NULL,
    changed INTEGER NOT NULL            -- the number of things that changed
);
CREATE INDEX audit_in_order ON audit (acted_at);

-- Bulk operations: one act on all jobs that met a filter when it began.
CREATE TABLE operations (
    id INTEGER PRIMARY KEY,
    act TEXT NOT NULL,
    filter TEXT NOT NULL,
    author TEXT,                        -- the name of the operator's token
    created_at INTEGER NOT NULL,
    ended_at INTEGER,
    state TEXT NOT NULL,
    last_job INTEGER,                    -- the operation goes on with lower ids
    step INTEGER NOT NULL,               -- how many steps were taken: a step that was decided before another one is not taken
    trial_jobs INTEGER,                  -- how many jobs to try first, and within which time they must succeed
    trial_within_us INTEGER,
    tried TEXT NOT NULL,                -- the ids of these jobs
    tried_at INTEGER,
    spread_us INTEGER NOT NULL,
    attempts INTEGER NOT NULL,           -- how many each retried job gets
    priority INTEGER NOT NULL,           -- the one that jobs get
    changed INTEGER NOT NULL,
    skipped INTEGER NOT NULL,
    reason TEXT,
    token BLOB                         -- of the request; a text as bytes
);
CREATE INDEX operations_open ON operations (id) WHERE ended_at IS NULL;
CREATE INDEX operations_token ON operations (token) WHERE token IS NOT NULL;

-- What decided why jobs waited when an operation began, as long as the operation is open. Only of those whose filters ask for that.
CREATE TABLE operation_waits (
    operation INTEGER NOT NULL,
    kind INTEGER NOT NULL,              -- 0 a hold, 1 a limit, 2 the running jobs of a lane, 3 that all were kept
    name TEXT NOT NULL,                 -- the scope of the hold, or a limit group
    key TEXT NOT NULL,                  -- empty if there is none
    per_key INTEGER,
    jobs INTEGER,                       -- the total of the limit, or how many jobs ran
    PRIMARY KEY (operation, kind, name, key)
) WITHOUT ROWID;

-- How many jobs of each durable broadcast were deleted, as long as others of the broadcast remain.
CREATE TABLE deleted_of_batch (
    batch INTEGER PRIMARY KEY,
    jobs INTEGER NOT NULL
);

-- Schedules: the jobs that are enqueued at the moments of a clock.
CREATE TABLE schedules (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL,
    key TEXT NOT NULL,                  -- empty if the task finds it in the payload
    payload BLOB NOT NULL,
    priority INTEGER NOT NULL,
    cron TEXT,                          -- an expression and its zone, or an interval
    zone TEXT,
    every_us INTEGER,
    missed TEXT NOT NULL,
    window_us INTEGER NOT NULL,
    overlap TEXT NOT NULL,
    spread_us INTEGER NOT NULL,
    pause_after INTEGER,
    source TEXT NOT NULL,
    revision INTEGER NOT NULL,          -- when the file was written that it was read from
    version INTEGER NOT NULL,           -- it grows with every change: who decides on a row says which one it was
    author TEXT,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    moved_at INTEGER NOT NULL,          -- when next_at was worked out
    next_at INTEGER,
    last_tick INTEGER,
    open_jobs TEXT NOT NULL,            -- the ids of jobs that had not finished
    failures INTEGER NOT NULL,
    paused_at INTEGER,
    paused_until INTEGER,
    paused_by TEXT,
    pause_reason TEXT,
    retired_at INTEGER,
    fired_count INTEGER NOT NULL,
    missed_count INTEGER NOT NULL,
    skipped_count INTEGER NOT NULL,
    recent TEXT NOT NULL,               -- the last ticks, one to a line
    tick_as TEXT                        -- where in the payload each job finds its tick
);
CREATE INDEX schedules_due ON schedules (next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_moved ON schedules (moved_at);

-- The schedules in the settings files of nodes: the id and the digest of each definition, one to a line.
CREATE TABLE schedule_files (
    node INTEGER PRIMARY KEY,
    schedules TEXT NOT NULL
);

-- The highest id of a deleted job: ids are never used twice.
CREATE TABLE last_deleted (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id INTEGER NOT NULL
);

-- Random bytes of this store, with which hosts seal what they give to clients and read again.
CREATE TABLE seal_key (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    bytes BLOB NOT NULL
);
INSERT INTO seal_key VALUES (1, randomblob(32));

-- The values that plugins keep from one attempt to the next. Keys are ordered by their bytes.
CREATE TABLE kv (
    plugin TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (plugin, key)
);

-- How much each plugin has in `kv`: written with every change, since counting would read all of it.
CREATE TABLE kv_usage (
    plugin TEXT PRIMARY KEY,
    value_count INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL        -- keys and values
) WITHOUT ROWID;

-- What nodes recorded about themselves, for the node that finds their leases expired: whether the node was draining, and
-- which suspect it started last. A node has a new number each time that it starts.
CREATE TABLE node_marks (
    node INTEGER PRIMARY KEY,
    marked_at INTEGER NOT NULL,
    draining INTEGER NOT NULL,
    suspect_job INTEGER,                -- this and the next two are null if no suspect was started
    suspect_attempt INTEGER,
    suspect_alone INTEGER               -- 1 if no other job runs beside the suspect
);
