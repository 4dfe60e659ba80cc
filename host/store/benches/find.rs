//! How long one answer to a filter takes, at worst, among many jobs.
//!
//! `cargo bench --workspace --bench find`. `WHARF_BENCH_JOBS` is how many jobs there are, 5,000,000 by default; a fifth of them
//! are of one tenant. `WHARF_BENCH_STORE=postgres://…` names a database whose schema the bench may fill; without it the store is
//! a new SQLite file. The rows are written by SQL, past the store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::find::{JobCursor, JobOrder, JobQuery};
use wharf_core::ids::JobId;
use wharf_core::time::Timestamp;
use wharf_store::{Clock as _, FindRequest, PostgresStore, SqliteStore, Store, SystemClock};

/// Answers of one list that are measured.
const PAGES: usize = 40;

/// Filters that find much, little and nothing, with an index and without one.
const FILTERS: [(&str, JobOrder); 19] = [
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

fn fill_sqlite(file: &std::path::Path, jobs: u64) {
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
         INSERT INTO reports SELECT id, 'trapped', 'unreachable was reached in make', {FINGERPRINT} FROM jobs WHERE state = 4;
         INSERT INTO attempts ({ATTEMPT_COLUMNS}) SELECT {ATTEMPT_VALUES} FROM jobs WHERE state = 4;
         COMMIT;"
    );
    conn.execute_batch(&sql(&text, jobs)).expect("rows");
}

async fn fill_postgres(address: &str, jobs: u64) {
    let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls).await.expect("the database");
    tokio::spawn(connection);
    let values = VALUES.replace(
        "$payload",
        "('{\"tenant\": \"' || i % 10000 || '\", \"fill\": \"' || repeat('0', 60) || '\"}')::bytea",
    );
    let text = format!(
        "SET search_path TO wharf; SET synchronous_commit = off;
         INSERT INTO names (id, text) OVERRIDING SYSTEM VALUE VALUES (1, 'words/count'), (2, 'words/list'), (3, 'words/sort');
         INSERT INTO jobs ({COLUMNS}) SELECT {values} FROM generate_series(0::bigint, $jobs - 1) AS n (i);
         UPDATE jobs SET report_outcome = 'trapped', report_text = 'unreachable was reached in make',
             fingerprint = {FINGERPRINT} WHERE unsuccessful = 4;
         INSERT INTO attempts ({ATTEMPT_COLUMNS}) SELECT {ATTEMPT_VALUES} FROM jobs WHERE unsuccessful = 4;
         INSERT INTO ready SELECT task, -1, due_at, id, task, ARRAY[id] FROM jobs WHERE state = 1;
         INSERT INTO finished SELECT finished_at, id, ARRAY[id] FROM jobs WHERE finished_at IS NOT NULL"
    );
    client.batch_execute(&sql(&text, jobs)).await.expect("rows");
    client.batch_execute("VACUUM ANALYZE wharf.jobs, wharf.attempts").await.expect("statistics");
}

/// Measures one list: how long its answers took, in milliseconds, the median and the longest; how many jobs an answer looked at;
/// how many were found; and whether the list ended.
async fn measure(store: &dyn Store, filter: &str, order: JobOrder, now: Timestamp) -> (f64, f64, u64, usize, bool) {
    let query = Arc::new(JobQuery::parse(filter, now).expect("a filter"));
    let (mut after, mut times, mut looked_at, mut found) = (None::<JobCursor>, Vec::new(), 0, 0);
    for _ in 0..PAGES {
        let request = FindRequest { order, after, ..FindRequest::new(query.clone(), Arc::default(), 100) };
        let begin = Instant::now();
        let page = store.find(request).await.expect("an answer");
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        looked_at += page.looked_at;
        found += page.jobs.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1], looked_at / times.len() as u64, found, after.is_none())
}

#[tokio::main]
async fn main() {
    let jobs: u64 = std::env::var("WHARF_BENCH_JOBS").map_or(5_000_000, |jobs| jobs.parse().expect("a number of jobs"));
    let folder = tempfile::tempdir().expect("a folder for the bench");
    let store: Arc<dyn Store> = match std::env::var("WHARF_BENCH_STORE") {
        Ok(address) => {
            let store = PostgresStore::open(&address).await.expect("a store");
            fill_postgres(&address, jobs).await;
            Arc::new(store)
        }
        Err(_) => {
            let file = folder.path().join("bench.db");
            fill_sqlite(&file, jobs);
            Arc::new(SqliteStore::open(&file, Arc::new(SystemClock)).expect("a store"))
        }
    };
    println!("{jobs} jobs; times of one answer in ms, of up to {PAGES} answers");
    println!("{:>8} {:>8} {:>10} {:>7}  filter", "median", "longest", "looked at", "found");
    for (filter, order) in FILTERS {
        let (median, longest, looked_at, found, ended) = measure(&*store, filter, order, SystemClock.now()).await;
        let end = if ended { "" } else { ", and more" };
        println!("{median:>8.1} {longest:>8.1} {looked_at:>10} {found:>7}  {order:?} {filter}{end}");
    }
}
