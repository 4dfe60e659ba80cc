-- `$schema` stands for the schema that the store's address names.
-- Moments are microseconds since 1970 and end in `_at` or `_until`; lengths of time end in `_us`, sizes in `_bytes`.

-- Shows that the tables belong to Wharf, and to which layout. Tables of another layout can't be migrated to this one.
-- Wharf 0.1 wrote layout 1 into a table of this name with these columns, and refuses any other layout by its number.
CREATE TABLE $schema.mark (
    application text NOT NULL,
    layout integer NOT NULL
);
INSERT INTO $schema.mark VALUES ('wharf', 2);

-- The names of tasks and limit groups. Few, and never removed: each host caches their numbers.
CREATE TABLE $schema.names (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text text COLLATE "C" NOT NULL UNIQUE
);

-- The limit groups in which a task's jobs were ever enqueued: a claim has to lock these. Few, and never removed.
CREATE TABLE $schema.task_groups (
    task integer NOT NULL,
    limit_group integer NOT NULL,
    PRIMARY KEY (task, limit_group)
);

-- Numbers for lines, for the turns of lanes and for rows of `running`. Only their order matters, and gaps mean nothing:
-- a value of the sequence covers itself and all numbers up to the next value.
CREATE SEQUENCE $schema.line_numbers INCREMENT BY 4096;

-- The number of a host, in the lowest bits of each job id that it makes, keeps ids of different hosts apart.
-- A host makes only ids that are reserved for its number, and the next owner of the number continues above them.
CREATE TABLE $schema.id_sources (
    number integer PRIMARY KEY,
    owner bigint NOT NULL,              -- a random number of each host that starts
    owned_until bigint NOT NULL,
    reserved_below bigint NOT NULL      -- ids of this number below this are reserved, or were
) WITH (fillfactor = 30);
INSERT INTO $schema.id_sources SELECT number, 0, 0, 0 FROM generate_series(0, 1023) AS number;

-- The number that was given out last.
CREATE SEQUENCE $schema.last_id_source MINVALUE 0 MAXVALUE 1023 START 0 CYCLE;

-- One row per job. The server moves large values out of the row by itself, so rewriting the row as the job moves on does not
-- rewrite those. A lane is (limit_group, key); a job without a key has the empty one.
-- No index has a column that changes while a job is claimed and succeeds: such a row is rewritten within its page, which has
-- free bytes for it, and no index changes. Otherwise it costs three times as much.
CREATE TABLE $schema.jobs (
    id bigint PRIMARY KEY,
    state smallint NOT NULL,            -- 0 delayed, 1 ready, 2 running, 3 succeeded, 4 failed, 5 cancelled
    limit_group integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    task integer NOT NULL,
    line bigint,                        -- an id of `lines`; only valid in state 1
    priority integer NOT NULL,
    due_at bigint NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    cancel_requested boolean NOT NULL DEFAULT false,
    delayed boolean NOT NULL GENERATED ALWAYS AS (state = 0) STORED,
    unsuccessful smallint GENERATED ALWAYS AS (CASE WHEN state >= 4 THEN state END) STORED,
    enqueued_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    node bigint,                        -- the owner of the lease; this and the next column are only valid in state 2
    lease_expires_at bigint,
    token bytea,
    batch bigint,                       -- the durable broadcast that the job belongs to, and its topic; null in all other jobs
    topic text,
    tick text,                          -- of a job of a schedule: its tick, the one before, and how many were missed between
    parent bigint,                      -- the job whose attempt enqueued this one
    generation integer NOT NULL,        -- how many jobs are above it
    payload_bytes bigint NOT NULL,
    payload bytea NOT NULL,
    -- The results of ended attempts: how the last unsuccessful one ended, what all of them used, the output.
    -- Texts are bytes, since a guest may write characters that PostgreSQL does not accept in a text.
    report_outcome text,
    report_text bytea,
    fingerprint text COLLATE "C",       -- null unless the job failed
    requeued_at bigint,                 -- when the job last came back to wait, and when an operator last retried it
    retried_at bigint,
    queue_wait_us bigint,
    cpu_us bigint,
    wall_us bigint,
    memory_peak_bytes bigint,
    in_bytes bigint,
    out_bytes bigint,
    output bytea
) WITH (fillfactor = 35, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- How many jobs of each task wait, due or not: the sum over all shards, in which a single one may be negative. A
-- transaction adds what it changes to one shard, so that hosts seldom wait for each other.
CREATE TABLE $schema.waiting_jobs (
    shard integer NOT NULL,
    task integer NOT NULL,
    jobs bigint NOT NULL,
    PRIMARY KEY (shard, task)
) WITH (fillfactor = 20);

-- Each index holds only the jobs that its query is about; most jobs are in none of them but the primary key.
CREATE INDEX jobs_delayed ON $schema.jobs (due_at, id) WHERE delayed;
CREATE INDEX jobs_delayed_lane ON $schema.jobs (limit_group, key) WHERE delayed;
CREATE INDEX jobs_cancel_requested ON $schema.jobs (id) WHERE cancel_requested;
CREATE INDEX jobs_unsuccessful ON $schema.jobs (unsuccessful, id) WHERE unsuccessful IS NOT NULL;
CREATE INDEX jobs_fingerprint ON $schema.jobs (fingerprint, id) WHERE fingerprint IS NOT NULL;
CREATE UNIQUE INDEX jobs_token ON $schema.jobs (token, task, key) WHERE token IS NOT NULL;
CREATE INDEX jobs_parent ON $schema.jobs (parent) WHERE parent IS NOT NULL;
CREATE INDEX jobs_batch ON $schema.jobs (batch) WHERE batch IS NOT NULL;

-- The ready jobs of each line, many in a row: those of one priority that are due at one moment, in the order of their ids.
-- Written under the lock of the limit group, as are the next two tables, in the transaction that changes the jobs.
CREATE TABLE $schema.ready (
    line bigint NOT NULL,               -- an id of `lines`
    rank integer NOT NULL,              -- ~priority, so the whole order ascends
    due_at bigint NOT NULL,
    first_id bigint NOT NULL,           -- the first of `ids`
    task integer NOT NULL,
    ids bigint[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX ready_in_order ON $schema.ready (line, rank, due_at, first_id);

-- The running jobs of each limit group, those of one claim together: used slots are counted here.
CREATE TABLE $schema.running (
    number bigint PRIMARY KEY,
    limit_group integer NOT NULL,
    ids bigint[] NOT NULL,
    keys text[] COLLATE "C" NOT NULL,   -- one for each id, or one for all
    -- The length of the claim's leases: a lease that ends later than this from now dates from before the clock was set back.
    lease_us bigint NOT NULL
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX running_by_group ON $schema.running (limit_group);

-- The jobs that finished at each moment. A job that was retried since then is listed once too often, and is skipped.
CREATE TABLE $schema.finished (
    finished_at bigint NOT NULL,
    first_id bigint NOT NULL,           -- the first of `ids`
    ids bigint[] NOT NULL
);
CREATE INDEX finished_in_order ON $schema.finished (finished_at, first_id);

-- One row for each task of a lane that has ready jobs: a claim reads these instead of the jobs.
-- `turn`, `closed_by_limit` and `held_until_at` belong to the lane and are equal in all its lines. A lane without a free slot at
-- its last check is closed by the limit that applied then; nodes may declare different limits. One that was held at its last
-- check is closed until its last hold ends.
CREATE TABLE $schema.lines (
    id bigint NOT NULL,                 -- without an index, since each index costs every claim
    limit_group integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    task integer NOT NULL,
    top_priority integer NOT NULL,      -- the highest priority of its ready jobs
    turn bigint NOT NULL,
    closed_by_limit integer,
    held_until_at bigint,               -- the highest number if somebody has to release the hold
    PRIMARY KEY (limit_group, key, task)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX lines_open ON $schema.lines (task, top_priority DESC, turn) WHERE closed_by_limit IS NULL AND held_until_at IS NULL;
CREATE INDEX lines_held ON $schema.lines (held_until_at) WHERE held_until_at IS NOT NULL;
CREATE INDEX lines_closed ON $schema.lines (limit_group) WHERE closed_by_limit IS NOT NULL;

-- The log of each job.
CREATE TABLE $schema.entries (
    job bigint NOT NULL,
    number bigint NOT NULL,
    attempt integer NOT NULL,
    written_at bigint NOT NULL,
    kind smallint NOT NULL,             -- 0 chunk, 1 stdout, 2 stderr, 3 dropped lines, 4 progress
    amount double precision,            -- the number of dropped lines, or the fraction done
    data bytea,
    PRIMARY KEY (job, number)
);

-- The attempts of each job that ended without a result: the oldest and the newest of them.
CREATE TABLE $schema.attempts (
    job bigint NOT NULL,
    number integer NOT NULL,
    node bigint NOT NULL,               -- the node that had leased the job
    node_name text,                     -- this and the next two columns are null if the node did not record the end
    plugin_version text,
    digest text,
    began_at bigint,
    ended_at bigint NOT NULL,
    outcome text NOT NULL,
    report bytea NOT NULL,
    fingerprint text COLLATE "C",       -- null unless the attempt failed
    queue_wait_us bigint,               -- this and the next five columns are null if nobody measured them
    cpu_us bigint,
    wall_us bigint,
    memory_peak_bytes bigint,
    in_bytes bigint,
    out_bytes bigint,
    PRIMARY KEY (job, number)
);

-- The jobs that failed, by the fingerprint of their failures. Only a job that fails writes here and in the next four tables.
CREATE TABLE $schema.failure_groups (
    fingerprint text COLLATE "C" PRIMARY KEY,
    task text COLLATE "C" NOT NULL,
    outcome text NOT NULL,
    message text NOT NULL,               -- without what differs from job to job
    failures bigint NOT NULL,
    keys integer NOT NULL,                  -- how many of them are in `failure_keys`
    first_seen_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    state text NOT NULL,                 -- open, resolved or ignored
    changed_at bigint,                     -- when the state changed last, and the name of the operator's token
    changed_by text,
    regressed_at bigint                    -- when the group last came back after it was resolved
);
CREATE INDEX failure_groups_of_task ON $schema.failure_groups (task, last_seen_at, fingerprint);
CREATE INDEX failure_groups_in_order ON $schema.failure_groups (last_seen_at, fingerprint);

-- The digests of the plugin that failed, for each group.
CREATE TABLE $schema.failure_versions (
    fingerprint text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    version text NOT NULL,
    failures bigint NOT NULL,
    first_seen_at bigint NOT NULL,
    last_seen_at bigint NOT NULL,
    PRIMARY KEY (fingerprint, digest)
);

-- The last jobs of each group. They are deleted with their jobs, since messages may contain what these are about.
CREATE TABLE $schema.failure_samples (
    fingerprint text COLLATE "C" NOT NULL,
    job bigint NOT NULL,
    failed_at bigint NOT NULL,
    message bytea NOT NULL,
    PRIMARY KEY (fingerprint, job)
);
CREATE INDEX failure_samples_of_job ON $schema.failure_samples (job);

-- Hashes of the keys of each group's jobs: keys are counted and not kept.
CREATE TABLE $schema.failure_keys (
    fingerprint text COLLATE "C" NOT NULL,
    key_hash bigint NOT NULL,
    PRIMARY KEY (fingerprint, key_hash)
);

-- When each digest of a plugin was loaded first by any host, which tells a regression from an upgrade that is under way.
CREATE TABLE $schema.plugin_digests (
    plugin text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    version text NOT NULL,
    first_seen_at bigint NOT NULL,
    PRIMARY KEY (plugin, digest)
);

-- Limits that an operator set while hosts run.
CREATE TABLE $schema.overrides (
    limit_group text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,      -- empty for the whole group
    per_key bigint,
    total bigint,
    PRIMARY KEY (limit_group, key)
);

-- Jobs that an operator keeps waiting. A scope is "all", "plugin:P", "task:P/T", "group:G", "key:K" or "group:G key:K".
CREATE TABLE $schema.holds (
    scope text COLLATE "C" PRIMARY KEY,
    until_at bigint,                    -- when the hold ends by itself; null if somebody has to release it
    reason text NOT NULL,
    held_by text,                       -- the name of the operator's token
    held_at bigint NOT NULL
);
CREATE INDEX holds_ending ON $schema.holds (until_at) WHERE until_at IS NOT NULL;

-- The acts of operators: what they changed, each written in the transaction of its change.
CREATE TABLE $schema.audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    acted_at bigint NOT NULL,
    author text,                        -- the name of the operator's token, or "host:NAME"; null if the host asked for no token
    address text,                       -- the network address of the client, if it is known
    act text NOT NULL,
    target text NOT NULL,
    detail text NOT NULL,
    changed bigint NOT NULL             -- the number of things that changed
);
CREATE INDEX audit_in_order ON $schema.audit (acted_at, id);

-- Bulk operations: one act on all jobs that met a filter when it began.
CREATE TABLE $schema.operations (
    id bigint PRIMARY KEY,
    act text NOT NULL,
    filter text NOT NULL,
    author text,                        -- the name of the operator's token
    created_at bigint NOT NULL,
    ended_at bigint,
    state text NOT NULL,
    last_job bigint,                    -- the operation goes on with lower ids
    step bigint NOT NULL,               -- how many steps were taken: a step that was decided before another one is not taken
    trial_jobs bigint,                  -- how many jobs to try first, and within which time they must succeed
    trial_within_us bigint,
    tried text NOT NULL,                -- the ids of these jobs
    tried_at bigint,
    spread_us bigint NOT NULL,
    attempts integer NOT NULL,           -- how many each retried job gets
    priority integer NOT NULL,           -- the one that jobs get
    changed bigint NOT NULL,
    skipped bigint NOT NULL,
    reason text,
    token bytea                         -- of the request; a text as bytes
);
CREATE INDEX operations_open ON $schema.operations (id) WHERE ended_at IS NULL;
CREATE INDEX operations_token ON $schema.operations (token) WHERE token IS NOT NULL;

-- What decided why jobs waited when an operation began, as long as the operation is open. Only of those whose filters ask for that.
CREATE TABLE $schema.operation_waits (
    operation bigint NOT NULL,
    kind smallint NOT NULL,             -- 0 a hold, 1 a limit, 2 the running jobs of a lane, 3 that all were kept
    name text COLLATE "C" NOT NULL,     -- the scope of the hold, or a limit group
    key text COLLATE "C" NOT NULL,      -- empty if there is none
    per_key bigint,
    jobs bigint,                        -- the total of the limit, or how many jobs ran
    PRIMARY KEY (operation, kind, name, key)
);

-- The hosts that share this database, each as it registered itself.
CREATE TABLE $schema.nodes (
    id bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    version text NOT NULL,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    capacity bigint NOT NULL,
    running bigint NOT NULL,
    draining boolean NOT NULL,
    stopping boolean NOT NULL,
    plugins text[] NOT NULL,            -- this and the next four columns have one element for each loaded plugin
    plugin_versions text[] NOT NULL,
    digests text[] NOT NULL,
    topics text[] NOT NULL,             -- the patterns of one plugin in one element, separated by spaces
    tasks text[] NOT NULL,              -- announcements that let other hosts accept jobs for tasks that only this host has
    loading text[] NOT NULL,            -- plugins that are being loaded, each followed by its patterns where these are known
    memory_budget bigint,               -- in bytes
    settings text                       -- the digest of the settings that hosts should share
);

-- What ended on each host in the last minute and hour, by task, and its busiest keys: apart from `nodes`, which hosts read often.
CREATE TABLE $schema.node_activities (
    node bigint PRIMARY KEY,
    activity text NOT NULL
);

-- The notes of hosts about themselves, read when their leases expire: whether a host was being stopped, and which suspect it
-- started last. A host has a new number each time that it starts.
CREATE TABLE $schema.node_marks (
    node bigint PRIMARY KEY,
    marked_at bigint NOT NULL,
    draining boolean NOT NULL,
    suspect_job bigint,                 -- this and the next two columns are null if no suspect was started
    suspect_attempt integer,
    suspect_alone boolean               -- no other job runs beside it
);

-- Messages between hosts about broadcasts. Unlogged: a message that a crash of the server loses is noticed by a deadline.
CREATE UNLOGGED TABLE $schema.node_messages (
    id bigint GENERATED ALWAYS AS IDENTITY,
    sent_at bigint NOT NULL,
    sender bigint NOT NULL,
    receiver bigint NOT NULL,
    broadcast bigint NOT NULL,
    kind text NOT NULL,                 -- call, over, or the kind of a reply
    plugins text[] NOT NULL,
    topic text,
    deadline_at bigint,
    depth bigint,
    chain text[] NOT NULL,
    text text,
    retry_after_us bigint,
    body bytea,
    PRIMARY KEY (receiver, id)
);

-- How many jobs of each durable broadcast were deleted, as long as others of the broadcast remain.
CREATE TABLE $schema.deleted_of_batch (
    batch bigint PRIMARY KEY,
    jobs bigint NOT NULL
);

-- Schedules: the jobs that are enqueued at the moments of a clock.
CREATE TABLE $schema.schedules (
    id text COLLATE "C" PRIMARY KEY,
    task text NOT NULL,
    key text NOT NULL,                  -- empty if the task finds it in the payload
    payload bytea NOT NULL,
    priority integer NOT NULL,
    cron text,                          -- an expression and its zone, or an interval
    zone text,
    every_us bigint,
    missed text NOT NULL,
    window_us bigint NOT NULL,
    overlap text NOT NULL,
    spread_us bigint NOT NULL,
    pause_after bigint,
    source text NOT NULL,
    revision bigint NOT NULL,           -- when the file was written that it was read from
    version bigint NOT NULL,            -- it grows with every change: who decides on a row says which one it was
    author text,
    created_at bigint NOT NULL,
    changed_at bigint NOT NULL,
    moved_at bigint NOT NULL,           -- when next_at was worked out
    next_at bigint,
    last_tick bigint,
    open_jobs text NOT NULL,            -- the ids of jobs that had not finished
    failures bigint NOT NULL,
    paused_at bigint,
    paused_until bigint,
    paused_by text,
    pause_reason text,
    retired_at bigint,
    fired_count bigint NOT NULL,
    missed_count bigint NOT NULL,
    skipped_count bigint NOT NULL,
    recent text NOT NULL,               -- the last ticks, one to a line
    tick_as text                        -- where in the payload each job finds its tick
);
CREATE INDEX schedules_due ON $schema.schedules (next_at, id) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_moved ON $schema.schedules (moved_at);

-- The schedules in the settings files of nodes: the id and the digest of each definition, one to a line.
CREATE TABLE $schema.schedule_files (
    node bigint PRIMARY KEY,
    schedules text NOT NULL
);

-- The highest id of a deleted job: ids are never used twice.
CREATE TABLE $schema.last_deleted (
    one integer PRIMARY KEY CHECK (one = 1),
    id bigint NOT NULL
);

-- Random bytes of this store, with which hosts seal what they give to clients and read again.
CREATE TABLE $schema.seal_key (
    one integer PRIMARY KEY CHECK (one = 1),
    bytes bytea NOT NULL
);
INSERT INTO $schema.seal_key VALUES (1, sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

-- The values that plugins keep from one attempt to the next. Keys are texts as bytes: sorted by bytes, and with any character.
CREATE TABLE $schema.kv (
    plugin text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (plugin, key)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- The usage of `kv` by each plugin: written with every change, since counting it would mean to read it all. A transaction
-- that changes a plugin's values locks its row here, so changes of one plugin are made one after the other.
CREATE TABLE $schema.kv_usage (
    plugin text COLLATE "C" PRIMARY KEY,
    value_count bigint NOT NULL,
    total_bytes bigint NOT NULL         -- keys and values
) WITH (fillfactor = 50);

-- Undoes the transaction if a statement did not change as many rows as it had to: some job changed since the host read it,
-- and the host retries. WH001 is in a class that the SQL standard leaves to implementations (it begins with a letter from
-- I to Z) and that PostgreSQL does not use.
CREATE FUNCTION $schema.require_rows(changed bigint, expected bigint) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
    IF changed <> expected THEN
        RAISE EXCEPTION 'only % of % rows are as the host read them', changed, expected USING ERRCODE = 'WH001';
    END IF;
END $$;
