//! Tests that need the inside of the store: query plans, a full disk, how operations share a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;
use tempfile::TempDir;
use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::job::{NewJob, StateName};
use wharf_core::limits::LimitTable;
use wharf_core::outcome::Usage;
use wharf_core::room::Room;

use super::*;
use crate::clock::SystemClock;

fn store() -> (TempDir, Arc<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("wharf.db"), Arc::new(SystemClock)).unwrap();
    (folder, Arc::new(store))
}

fn new_job(store: &SqliteStore, payload_bytes: usize) -> NewJob {
    let task: TaskName = "words/count".parse().unwrap();
    NewJob::ready(store.next_id().unwrap(), task, None, vec![7; payload_bytes].into())
}

fn claim(free: u32) -> Claim {
    let task: TaskName = "words/count".parse().unwrap();
    let tasks = [(task.clone(), Group::from(&task))].into();
    Claim {
        node: NodeId(1),
        tasks,
        declared: Arc::new(LimitTable::default()),
        free,
        room: Room::UNLIMITED,
        costs: Arc::default(),
        task_quotas: Vec::new(),
        lease: Duration::from_secs(30),
    }
}

/// Returns the SQL statements of the writing side, from its source files. Those with conditions that are put in at run time are
/// of readers, who list pages.
fn statements() -> Vec<String> {
    let files = [
        include_str!("load_queue.rs"),
        include_str!("holds.rs"),
        include_str!("kv.rs"),
        include_str!("statements.rs"),
        include_str!("ledger.rs"),
        include_str!("insert.rs"),
        include_str!("record.rs"),
        include_str!("attempts.rs"),
        include_str!("failures.rs"),
        include_str!("failure_rows.rs"),
        include_str!("claim.rs"),
    ];
    let texts = files.iter().flat_map(|file| file.split('"').skip(1).step_by(2));
    texts
        .filter(|text| ["SELECT ", "INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb)))
        .filter(|text| !text.contains("{}"))
        .map(|text| text.replace("{COLUMNS}", "*"))
        .collect()
}

/// The rows that a frequent statement reads must not grow with the number of waiting or finished jobs.
#[test]
fn no_statement_of_the_writer_scans() {
    /// The beginning of each statement that may scan, with what bounds the scan.
    const MAY_SCAN: &[(&str, &str)] = &[
        ("SELECT max(id) FROM (SELECT max(id)", "only when the file is opened"),
        ("SELECT coalesce(max(id), 0) FROM claims", "only when the file is opened"),
        ("SELECT coalesce(max(turn), 0) FROM turns", "only when the file is opened"),
        ("SELECT line, count(*), min(rank), max(rank), max(id)", "only when the file is opened"),
        ("SELECT id, node, claimed_at, lease_expires_at, jobs FROM claims", "only when the file is opened"),
        ("UPDATE claims SET lease_expires_at = ?1", "only when the file is opened"),
        ("UPDATE jobs SET lease_expires_at = ?1 WHERE state = 2 AND", "the running jobs, when the file is opened"),
        (
            "SELECT id, state, due_at, attempt, failures, crashes, cancel_requested, node, lease_expires_at, limit_group,",
            "the running jobs, when the file is opened",
        ),
        ("SELECT task, count(*) FROM jobs INDEXED BY jobs_delayed_lane", "the delayed jobs, when the file is opened"),
        ("SELECT scope, until_at, reason, held_by, held_at FROM holds", "when the file is opened, or after a rollback"),
        ("SELECT due_at FROM jobs WHERE state = 0 ORDER BY due_at LIMIT 1", "the first row of an index in that order"),
        ("DELETE FROM plugin_digests WHERE plugin = ?1", "a hundred digests of one plugin, when it has a new one"),
        ("DELETE FROM failure_versions WHERE fingerprint = ?1 AND digest IN", "the versions that one group may have"),
        ("DELETE FROM failure_samples WHERE fingerprint = ?1 AND job IN", "the samples that one group may have"),
        ("SELECT digest, version, failures, first_seen_at", "the versions that one group may have"),
        ("SELECT job, failed_at, message FROM failure_samples", "the samples that one group may have"),
    ];
    let (folder, _store) = store();
    let conn = Connection::open(folder.path().join("wharf.db")).unwrap();
    let mut explained = 0;
    for sql in statements() {
        let mut explain =
            conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let arguments = vec![1i64; explain.parameter_count()];
        let plan =
            explain.query_map(rusqlite::params_from_iter(arguments), |row| row.get::<_, String>("detail")).unwrap();
        let plan: Vec<String> = plan.map(Result::unwrap).collect();
        explained += 1;
        if MAY_SCAN.iter().any(|(may, _)| sql.starts_with(may)) {
            continue;
        }
        for detail in &plan {
            // A subquery that was found by an index is "scanned" row by row, as far as its LIMIT goes.
            let scans =
                detail.starts_with("SCAN ") && !detail.starts_with("SCAN (subquery") && detail != "SCAN CONSTANT ROW";
            assert!(!scans, "{sql}\nhas the plan {plan:#?}");
            // Only the jobs of one lane may be sorted; frequent queries get their rows in order from an index.
            let sorts = detail.contains("TEMP B-TREE") && !sql.contains("ORDER BY id");
            assert!(!sorts, "{sql}\nhas the plan {plan:#?}");
        }
    }
    assert!(explained > 30, "only {explained} statements were found in the source");
}

/// Limits the file to `max` more pages.
async fn limit_growth(store: &SqliteStore, max: i64) {
    let grow = move |ledger: &mut SqliteLedger| {
        let now: i64 = ledger.conn.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        ledger.conn.query_row(&format!("PRAGMA max_page_count = {}", now + max), [], |row| row.get::<_, i64>(0))
    };
    store.writer.write(grow, |_| false).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_busy_and_loses_nothing() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    let kept = new_job(&store, 10);
    store.insert(vec![kept.clone()], declared.clone()).await.unwrap();
    limit_growth(&store, 4).await;

    let large = new_job(&store, 1_000_000);
    let small = new_job(&store, 10);
    // In one group: the large one fails for lack of space, and the small one is inserted.
    let (refused, taken) = tokio::join!(
        store.insert(vec![large.clone()], declared.clone()),
        store.insert(vec![small.clone()], declared.clone())
    );
    let Err(StoreError::Busy(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("wharf.db") && text.contains("free some"), "{text}");
    taken.unwrap();
    assert_eq!(store.job(large.id, declared.clone()).await.unwrap(), None);
    assert_eq!(store.claim(claim(9)).await.unwrap().leased.len(), 2);

    // Space was freed: work resumes by itself.
    limit_growth(&store, 10_000).await;
    store.insert(vec![large.clone()], declared.clone()).await.unwrap();
    assert_eq!(store.claim(claim(9)).await.unwrap().leased[0].lease.job, large.id);
}

#[tokio::test]
async fn an_end_its_children_and_its_values_are_written_together_or_not_at_all() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    let (parent, child) = (new_job(&store, 10), new_job(&store, 10));
    store.insert(vec![parent.clone()], declared.clone()).await.unwrap();
    let attempt = store.claim(claim(1)).await.unwrap().leased[0].lease.attempt;
    let (plugin, key): (PluginId, KvKey) = ("words".parse().unwrap(), "total".parse().unwrap());
    let mut changes = KvChanges::new(plugin.clone());
    changes.put(key.clone(), Some(vec![7; 1_000_000].into())).unwrap();
    let (children, changes, usage) = (vec![child.clone()], Some(Arc::new(changes)), Usage::default());
    let end = vec![(parent.id, Event::Succeeded { attempt, output: [1].into(), children, changes, usage })];
    limit_growth(&store, 4).await;
    // The value is written last, and fails for lack of space: what was written before it is rolled back.
    assert!(matches!(store.record(Arc::new(end.clone())).await, Err(StoreError::Busy(_))));
    let state = async || store.job(parent.id, declared.clone()).await.unwrap().unwrap().job.status.state.name();
    assert_eq!(state().await, StateName::Running);
    assert_eq!(store.job(child.id, declared.clone()).await.unwrap(), None);
    assert_eq!(store.value(plugin.clone(), key.clone()).await.unwrap(), None);
    limit_growth(&store, 10_000).await;
    store.record(Arc::new(end)).await.unwrap()[0].as_ref().unwrap();
    assert_eq!(state().await, StateName::Succeeded);
    assert!(store.job(child.id, declared.clone()).await.unwrap().is_some());
    assert_eq!(store.value(plugin, key).await.unwrap().map(|value| value.len()), Some(1_000_000));
}

#[tokio::test]
async fn operations_that_wait_share_a_commit() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    let nudges = store.nudges();
    let before = *nudges.borrow();
    let inserts = (0..400).map(|_| {
        let (store, declared) = (store.clone(), declared.clone());
        let job = new_job(&store, 10);
        tokio::spawn(async move { store.insert(vec![job], declared).await.unwrap() })
    });
    for insert in inserts.collect::<Vec<_>>() {
        insert.await.unwrap();
    }
    // The writer nudges once for each commit.
    let commits = *nudges.borrow() - before;
    assert!(commits < 200, "400 inserts took {commits} commits");
}

/// Starts an operation that blocks the writer: it reports that it has started, and waits for permission to continue.
fn blocked_writer(
    store: &SqliteStore,
) -> (impl Future<Output = Result<(), StoreError>>, tokio::sync::oneshot::Receiver<()>, std::sync::mpsc::Sender<()>) {
    let (report_started, started) = tokio::sync::oneshot::channel();
    let (resume, may_resume) = std::sync::mpsc::channel();
    let mut report_started = Some(report_started);
    let wait = move |_: &mut SqliteLedger| {
        report_started.take().map(|started| started.send(()));
        may_resume.recv().map_err(|_| rusqlite::Error::InvalidQuery)
    };
    (store.writer.write_unsynced(wait, |()| false), started, resume)
}

/// Returns the value of `PRAGMA synchronous` in an operation: with 2 the commit waits for the disk, with 1 it does not.
fn synchronous(ledger: &mut SqliteLedger) -> rusqlite::Result<i64> {
    ledger.conn.query_row("PRAGMA synchronous", [], |row| row.get(0))
}

#[tokio::test]
async fn only_claims_and_renewals_do_not_wait_for_the_disk() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    assert_eq!(store.writer.write(synchronous, |_| false).await.unwrap(), 2);
    assert_eq!(store.writer.write_unsynced(synchronous, |_| false).await.unwrap(), 1);
    store.insert(vec![new_job(&store, 10)], declared).await.unwrap();
    assert_eq!(store.claim(claim(1)).await.unwrap().leased.len(), 1);
    assert_eq!(store.writer.write(synchronous, |_| false).await.unwrap(), 2, "also after a claim");

    // Of operations that wait together, those that need not be durable run first, even if they came last.
    let (first, started, resume) = blocked_writer(&store);
    let done = Arc::new(AtomicU32::new(0));
    let counted = |done: &Arc<AtomicU32>| {
        let done = done.clone();
        move |ledger: &mut SqliteLedger| Ok((done.fetch_add(1, Ordering::Relaxed), synchronous(ledger)?))
    };
    let others = async {
        started.await.unwrap();
        tokio::join!(
            store.writer.write(counted(&done), |_| false),
            store.writer.write_unsynced(counted(&done), |_| false),
            async { resume.send(()).unwrap() },
        )
    };
    let (first, (durable, unsynced, ())) = tokio::join!(first, others);
    first.unwrap();
    assert_eq!((unsynced.unwrap(), durable.unwrap()), ((0, 1), (1, 2)));
}

#[tokio::test]
async fn a_commit_that_the_disk_did_not_confirm_may_have_been_written() {
    let (_folder, store) = store();
    let fails = Arc::new(AtomicU32::new(0));
    let unconfirmed = |fails: &Arc<AtomicU32>| {
        let fails = fails.clone();
        move |_: &mut SqliteLedger| {
            fails.fetch_add(1, Ordering::Relaxed);
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err::<(), _>(rusqlite::Error::SqliteFailure(code, None))
        }
    };
    let (first, started, resume) = blocked_writer(&store);
    let others = async {
        started.await.unwrap();
        tokio::join!(
            store.writer.write(unconfirmed(&fails), |()| false),
            store.writer.write(synchronous, |_| false),
            async { resume.send(()).unwrap() },
        )
    };
    let (first, (failed, with_it, ())) = tokio::join!(first, others);
    first.unwrap();
    for error in [failed.unwrap_err(), with_it.unwrap_err()] {
        assert!(matches!(error, StoreError::Unknown(_)), "{error}");
    }
    assert_eq!(fails.load(Ordering::Relaxed), 1, "it was tried again");
    assert_eq!(store.writer.write(synchronous, |_| false).await.unwrap(), 2);
}

#[tokio::test]
async fn readers_do_not_wait_for_the_writer() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    let job = new_job(&store, 10);
    store.insert(vec![job.clone()], declared.clone()).await.unwrap();
    let (blocked, started, resume) = blocked_writer(&store);
    let read = async {
        started.await.unwrap();
        let seen = store.job(job.id, declared.clone()).await.unwrap();
        resume.send(()).unwrap();
        seen
    };
    let (blocked, seen) = tokio::join!(blocked, read);
    blocked.unwrap();
    assert_eq!(seen.unwrap().job.id, job.id);
}
