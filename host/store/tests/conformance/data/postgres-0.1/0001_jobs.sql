-- What tasks and groups are called. Few, and never removed: each host remembers their numbers.
CREATE TABLE wharf.names (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text text COLLATE "C" NOT NULL UNIQUE
);

-- In which groups a task's jobs were ever enqueued: what a claim has to lock. Few, and never removed.
CREATE TABLE wharf.places (
    task integer NOT NULL,
    grp integer NOT NULL,
    PRIMARY KEY (task, grp)
);

-- Turns of lanes, and the numbers of lines. Only their order means something, and gaps mean nothing: each that is drawn
-- stands for itself and those up to the next.
CREATE SEQUENCE wharf.numbers INCREMENT BY 4096;

-- Tells the ids of hosts apart that make some in the same moment.
CREATE SEQUENCE wharf.sources MINVALUE 0 MAXVALUE 1023 START 0 CYCLE;

-- One row per job. The server keeps what is large beside it by itself, so that rewriting a row as the job moves on does not
-- rewrite that. A lane is (grp, key); a job without a key has the empty one.
-- No index has a column that changes while a job is claimed and succeeds: such a row is rewritten within its page, for which
-- there is room, and no index hears of it. That is a third of what it costs otherwise.
CREATE TABLE wharf.jobs (
    id bigint PRIMARY KEY,
    state smallint NOT NULL,            -- 0 delayed, 1 ready, 2 running, 3 succeeded, 4 failed, 5 cancelled
    grp integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    task integer NOT NULL,
    line bigint,                        -- of `lines`; only means something in state 1
    priority integer NOT NULL,
    due bigint NOT NULL,                -- moments are microseconds since 1970
    attempt integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    cancel_asked boolean NOT NULL DEFAULT false,
    delayed boolean NOT NULL GENERATED ALWAYS AS (state = 0) STORED,
    unsuccessful smallint GENERATED ALWAYS AS (CASE WHEN state >= 4 THEN state END) STORED,
    enqueued_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint,
    node bigint,                        -- of the lease, as is the next one; both only mean something in state 2
    lease_until bigint,
    token bytea,
    batch bigint,                       -- of which durable broadcast it is, and the topic of that; null in all other jobs
    topic text,
    bytes bigint NOT NULL,              -- of the payload
    payload bytea NOT NULL,
    -- What ended attempts left: how the last unsuccessful one ended, what the last one cost, the result.
    -- Texts are bytes, since a guest may write what PostgreSQL does not take for text.
    kind text,
    report bytea,
    queue_wait bigint,                  -- lengths are microseconds
    guest bigint,
    wall bigint,
    memory_peak bigint,
    bytes_in bigint,
    bytes_out bigint,
    output bytea
) WITH (fillfactor = 35, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- Each index holds only the jobs that its question is about; most jobs are in none of them but the first.
CREATE INDEX jobs_delayed ON wharf.jobs (due, id) WHERE delayed;
CREATE INDEX jobs_delayed_lane ON wharf.jobs (grp, key) WHERE delayed;
CREATE INDEX jobs_asked_to_end ON wharf.jobs (id) WHERE cancel_asked;
CREATE INDEX jobs_unsuccessful ON wharf.jobs (unsuccessful, id) WHERE unsuccessful IS NOT NULL;
CREATE UNIQUE INDEX jobs_token ON wharf.jobs (token, task) WHERE token IS NOT NULL;
CREATE INDEX jobs_batch ON wharf.jobs (batch) WHERE batch IS NOT NULL;

-- The ready jobs of each line, many in a row: those of one priority that are due at one moment, in the order of their ids.
-- Written under the lock of the group, as are the next two tables, in the transaction that changes the jobs.
CREATE TABLE wharf.queued (
    line bigint NOT NULL,               -- of `lines`
    rank integer NOT NULL,              -- ~priority: all of the order ascends
    due bigint NOT NULL,
    first bigint NOT NULL,              -- of the ids
    task integer NOT NULL,
    ids bigint[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX queued_in_order ON wharf.queued (line, rank, due, first);

-- The running jobs of each group, those of one claim together: who holds a slot is counted here.
CREATE TABLE wharf.held (
    number bigint PRIMARY KEY,
    grp integer NOT NULL,
    ids bigint[] NOT NULL,
    keys text[] COLLATE "C" NOT NULL    -- one for each id, or one for all
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX held_by_group ON wharf.held (grp);

-- Which jobs ended at which moment. One that was tried again since stands here once more than it should, and is passed over.
CREATE TABLE wharf.ended (
    at bigint NOT NULL,
    first bigint NOT NULL,              -- of the ids
    ids bigint[] NOT NULL
);
CREATE INDEX ended_in_order ON wharf.ended (at, first);

-- One row for each task of a lane that has ready jobs: what a claim looks at instead of the jobs.
-- `turn` and `closed_by` are the lane's, the same in all its lines. A lane that had no slot when last looked at
-- is closed by the limit that it had then; nodes may differ in what they declare.
CREATE TABLE wharf.lines (
    id bigint NOT NULL,                 -- a number of its own; no index, since each costs every claim
    grp integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    task integer NOT NULL,
    top integer NOT NULL,
    turn bigint NOT NULL,
    closed_by integer,
    PRIMARY KEY (grp, key, task)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX lines_open ON wharf.lines (task, top DESC, turn) WHERE closed_by IS NULL;
CREATE INDEX lines_closed ON wharf.lines (grp) WHERE closed_by IS NOT NULL;

CREATE TABLE wharf.entries (
    job bigint NOT NULL,
    number bigint NOT NULL,
    attempt integer NOT NULL,
    at bigint NOT NULL,
    kind smallint NOT NULL,             -- 0 chunk, 1 stdout, 2 stderr, 3 lines dropped, 4 progress
    amount double precision,            -- lines dropped, or the fraction done
    data bytea,
    PRIMARY KEY (job, number)
);

CREATE TABLE wharf.overrides (
    grp text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,      -- empty for the whole group
    per_key bigint,
    total bigint,
    PRIMARY KEY (grp, key)
);

-- The hosts that share this database, each as it announced itself.
CREATE TABLE wharf.nodes (
    id bigint PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    version text NOT NULL,
    started bigint NOT NULL,
    seen bigint NOT NULL,
    capacity bigint NOT NULL,
    running bigint NOT NULL,
    draining boolean NOT NULL,
    plugins text[] NOT NULL,            -- one element of each for each plugin
    versions text[] NOT NULL,
    digests text[] NOT NULL,
    topics text[] NOT NULL              -- the patterns of one plugin in one element, divided by spaces
);

-- What hosts write to each other about a broadcast. Not logged: a letter that a crash of the server takes is missed by a deadline.
CREATE UNLOGGED TABLE wharf.letters (
    id bigint GENERATED ALWAYS AS IDENTITY,
    at bigint NOT NULL,
    sender bigint NOT NULL,
    receiver bigint NOT NULL,
    broadcast bigint NOT NULL,
    kind text NOT NULL,                 -- call, over, or the kind of an answer
    plugins text[] NOT NULL,
    topic text,
    until bigint,
    depth bigint,
    chain text[] NOT NULL,
    said text,
    after bigint,
    body bytea,
    PRIMARY KEY (receiver, id)
);

-- The highest id of a job that was forgotten: ids are never used twice.
CREATE TABLE wharf.last_forgotten (
    one integer PRIMARY KEY CHECK (one = 1),
    id bigint NOT NULL
);
