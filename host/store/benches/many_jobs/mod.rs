//! A store of many jobs, and filters that find much, little and nothing among them.
//!
//! `WHARF_BENCH_JOBS` is how many jobs there are, 5,000,000 by default; a fifth of them are of one tenant. `WHARF_BENCH_STORE=postgres://…`
//! names a database whose schema `wharf` is filled; without it the store is a new SQLite file. The rows are written by SQL, past
//! the store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wharf_core::find::JobOrder;
use wharf_core::ids::JobId;
use wharf_store::{Clock as _, PostgresStore, SqliteStore, SystemClock};

/// Where the jobs are.
pub(crate) enum Filled {
    /// In the file of SQLite that is named [`FILE`], in the folder that was given.
    Sqlite,
    /// In the database at this address.
    Postgres(String),
}

/// Returns the number of jobs.
pub(crate) fn jobs() -> u64 {
    std::env::var("WHARF_BENCH_JOBS").map_or(5_000_000, |jobs| jobs.parse().expect("a number of jobs"))
}

/// The name of the file of SQLite, as hosts in tests have it.
pub(crate) const FILE: &str = "wharf.db";

/// Fills a store, in `folder` if it is a file.
pub(crate) async fn fill(folder: &Path) -> Filled {
    match std::env::var("WHARF_BENCH_STORE") {
        Ok(address) => {
            drop(PostgresStore::open(&address).await.expect("a store"));
            fill_postgres(&address, jobs()).await;
            Filled::Postgres(address)
        }
        Err(_) => {
            fill_sqlite(&folder.join(FILE), jobs());
            Filled::Sqlite
        }
    }
}

/// Filters that find much, little and nothing, with an index and without one.
pub(crate) const FILTERS: [(&str, JobOrder); 19] = [
    ("", JobOrder::Newest),
    ("key:big", JobOrder::Newest),
    ("key:nobody", JobOrder::Newest),
    ("task:words/count key:big state:succeeded", JobOrder::Newest),
    ("state:failed", JobOrder::Newest),
    ("state:failed,cancelled text:nowhere", JobOrder::Newest),
    ("text:nowhere", JobOrder::Newest),
    ("state:waiting", JobOrder::Newest),
    ("state:ready,blocked,held key:nobody", JobOrder::Newest),
    ("fingerprint:f1:0000000000000001", JobOrder::Newest),
    ("fingerprint:f1:0000000000000001 key:nobody", JobOrder::Newest),
    ("fingerprint:f1:0000000000000002", JobOrder::Newest),
    ("digest:0123456789abcdef state:failed", JobOrder::Newest),
    ("digest:0000000000000000", JobOrder::Newest),
    ("payload./tenant=nobody", JobOrder::Newest),
    ("payload./tenant=nobody key:big", JobOrder::Newest),
    ("since:7d until:6d key:nobody", JobOrder::Newest),
    ("", JobOrder::Finished),
    ("key:nobody finished-since:6d", JobOrder::Finished),
];

/// The columns of the jobs, as SQL that both databases understand: `i` is the number of the job, `$first` the ID of the first
/// one, `$step` the distance of IDs, `$start` the moment of the first one in microseconds, and `$gap` their distance.
const COLUMNS: &str =
    "id, state, limit_group, key, task, priority, due_at, attempt, enqueued_at, started_at, finished_at,
    generation, payload_bytes, payload";
const VALUES: &str = "$first + i * $step,
    CASE WHEN i % 100 = 7 THEN 4 WHEN i % 200 = 9 THEN 5 WHEN i % 200 = 11 THEN 1 ELSE 3 END,
    1, CASE WHEN i % 5 = 0 THEN 'big' ELSE 'tenant-' || (i * 7919 % 10000) END, 1 + i % 3, 0, $start + i * $gap, 1,
    $start + i * $gap, $start + i * $gap + 1000,
    CASE WHEN i % 200 = 11 THEN NULL ELSE $start + i * $gap + 100000 END, 0, 100,
    $payload";

/// The fingerprint of a failed job: those of some tenants have another cause than the others.
const FINGERPRINT: &str = "CASE WHEN key LIKE 'tenant-12%' THEN 'f1:0000000000000002' ELSE 'f1:0000000000000001' END";

/// The columns of the attempt of a failed job.
const ATTEMPT_COLUMNS: &str =
    "job, number, node, node_name, plugin_version, digest, began_at, ended_at, outcome, report";
const ATTEMPT_VALUES: &str = "id, 1, 1, 'here', '1.0', '0123456789abcdef', started_at, finished_at, 'trapped', 'unreachable was reached in make'";

/// The groups of the jobs that failed.
const GROUPS: &str = "INSERT INTO failure_groups (fingerprint, task, outcome, message, failures, keys, first_seen_at, last_seen_at, state)
    SELECT fingerprint, 'words/count', 'trapped', 'unreachable was reached in make', count(*), 1000, min($start), max($start), 'open'
    FROM $reports WHERE fingerprint IS NOT NULL GROUP BY fingerprint;";

fn sql(text: &str, jobs: u64) -> String {
    let span = Duration::from_secs(7 * 86_400);
    let start = SystemClock.now() - span;
    let gap = (span.as_micros() as u64 / jobs).max(1);
    let (first, last) = (JobId::first_number_at(start), JobId::first_number_at(start + span));
    let step = ((last - first) / jobs).max(1);
    text.replace("$first", &first.to_string())
        .replace("$step", &step.to_string())
        .replace("$start", &start.as_micros().to_string())
        .replace("$gap", &gap.to_string())
        .replace("$jobs", &jobs.to_string())
}

fn fill_sqlite(file: &Path, jobs: u64) {
    drop(SqliteStore::open(file, Arc::new(SystemClock)).expect("a store"));
    let conn = rusqlite::Connection::open(file).expect("the store's file");
    let values = VALUES.replace(
        "$payload",
        "CAST('{\"tenant\": \"' || i % 10000 || '\", \"fill\": \"' || hex(zeroblob(30)) || '\"}' AS BLOB)",
    );
    let text = format!(
        "PRAGMA synchronous = OFF; BEGIN;
         INSERT INTO names (id, text) VALUES (1, 'words/count'), (2, 'words/list'), (3, 'words/sort');
         WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $jobs)
         INSERT INTO jobs ({COLUMNS}) SELECT {values} FROM n;
         INSERT INTO ready SELECT task, 0, due_at, id FROM jobs WHERE state = 1;
         INSERT INTO reports (job, outcome, text, fingerprint) SELECT id, 'trapped', 'unreachable was reached in make', {FINGERPRINT} FROM jobs WHERE state = 4;
         INSERT INTO attempts ({ATTEMPT_COLUMNS}) SELECT {ATTEMPT_VALUES} FROM jobs WHERE state = 4;
         {groups}
         COMMIT;",
        groups = GROUPS.replace("$reports", "reports")
    );
    conn.execute_batch(&sql(&text, jobs)).expect("rows");
}

pub(crate) async fn fill_postgres(address: &str, jobs: u64) {
    let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls).await.expect("the database");
    tokio::spawn(connection);
    let values = VALUES.replace(
        "$payload",
        "('{\"tenant\": \"' || i % 10000 || '\", \"fill\": \"' || repeat('0', 60) || '\"}')::bytea",
    );
    let text = format!(
        "SET search_path TO wharf; SET synchronous_commit = off;
         INSERT INTO names (id, text) OVERRIDING SYSTEM VALUE VALUES (1, 'words/count'), (2, 'words/list'), (3, 'words/sort');
         ALTER TABLE names ALTER COLUMN id RESTART WITH 100;
         INSERT INTO jobs ({COLUMNS}) SELECT {values} FROM generate_series(0::bigint, $jobs - 1) AS n (i);
         UPDATE jobs SET report_outcome = 'trapped', report_text = 'unreachable was reached in make',
             fingerprint = {FINGERPRINT} WHERE unsuccessful = 4;
         INSERT INTO attempts ({ATTEMPT_COLUMNS}) SELECT {ATTEMPT_VALUES} FROM jobs WHERE unsuccessful = 4;
         {groups}
         INSERT INTO waiting_jobs SELECT 0, task, count(*) FROM jobs WHERE state = 1 GROUP BY task;
         INSERT INTO ready SELECT task, -1, due_at, id, task, ARRAY[id] FROM jobs WHERE state = 1;
         INSERT INTO finished SELECT finished_at, id, ARRAY[id] FROM jobs WHERE finished_at IS NOT NULL",
        groups = GROUPS.replace("$reports", "jobs")
    );
    client.batch_execute(&sql(&text, jobs)).await.expect("rows");
    client
        .batch_execute("VACUUM ANALYZE wharf.jobs, wharf.attempts, wharf.ready, wharf.finished, wharf.waiting_jobs")
        .await
        .expect("statistics");
}
