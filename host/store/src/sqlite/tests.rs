//! What only shows from inside: how statements find their rows, a full disk, how operations share a commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rusqlite::Connection;
use tempfile::TempDir;
use wharf_core::ids::{Group, NodeId, TaskName};
use wharf_core::job::{NewJob, StateName};
use wharf_core::key::Lane;
use wharf_core::limits::{LimitTable, OnConflict};
use wharf_core::outcome::Bill;

use super::*;
use crate::clock::SystemClock;

fn store() -> (TempDir, Arc<SqliteStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("wharf.db"), Arc::new(SystemClock)).unwrap();
    (folder, Arc::new(store))
}

fn new_job(store: &SqliteStore, payload: usize) -> NewJob {
    let task: TaskName = "words/count".parse().unwrap();
    NewJob {
        id: store.next_id().unwrap(),
        lane: Lane { group: Group::from(&task), key: None },
        task,
        payload: vec![7; payload].into(),
        priority: 0,
        due: None,
        token: None,
        on_conflict: OnConflict::Wait,
        batch: None,
    }
}

fn claim(free: u32) -> Claim {
    let task: TaskName = "words/count".parse().unwrap();
    let tasks = [(task.clone(), Group::from(&task))].into();
    Claim {
        node: NodeId(1),
        tasks,
        declared: Arc::new(LimitTable::default()),
        free,
        task_quotas: Vec::new(),
        lease: Duration::from_secs(30),
    }
}

/// The statements of the writing side, as they stand in its files.
fn statements() -> Vec<&'static str> {
    let files = [
        include_str!("recovery.rs"),
        include_str!("kv.rs"),
        include_str!("statements.rs"),
        include_str!("ledger.rs"),
        include_str!("insert.rs"),
        include_str!("record.rs"),
        include_str!("claim.rs"),
    ];
    let texts = files.iter().flat_map(|file| file.split('"').skip(1).step_by(2));
    texts
        .filter(|text| ["SELECT ", "INSERT ", "UPDATE ", "DELETE "].iter().any(|verb| text.starts_with(verb)))
        .collect()
}

/// Whatever a hot statement has to look through must not grow with the jobs that wait or are over.
#[test]
fn no_statement_of_the_writer_scans() {
    /// Each with what bounds it.
    const MAY_SCAN: &[(&str, &str)] = &[
        ("SELECT max(id) FROM (SELECT max(id)", "only when the file is opened"),
        ("SELECT coalesce(max(id), 0) FROM claims", "only when the file is opened"),
        ("SELECT coalesce(max(turn), 0) FROM turns", "only when the file is opened"),
        ("SELECT line, count(*), min(rank), max(rank), max(id)", "only when the file is opened"),
        ("SELECT id, node, claimed_at, lease_until, jobs FROM claims", "only when the file is opened"),
        ("UPDATE claims SET lease_until = ?1", "only when the file is opened"),
        ("UPDATE jobs SET lease_until = ?1 WHERE state = 2 AND lease_until > ?1", "the running jobs, at opening"),
        (
            "SELECT id, state, due, attempt, failures, crashes, cancel_asked, node, lease_until, grp, key, task, priority,",
            "the running jobs, at opening",
        ),
        ("SELECT due FROM jobs WHERE state = 0 ORDER BY due LIMIT 1", "the first row of an index in that order"),
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
            assert!(!scans, "{sql}\nis answered by {plan:#?}");
            // Sorting is for what one lane's answer needs; the hot questions come sorted from their index.
            let sorts = detail.contains("TEMP B-TREE") && !sql.contains("ORDER BY id");
            assert!(!sorts, "{sql}\nis answered by {plan:#?}");
        }
    }
    assert!(explained > 30, "only {explained} statements were found in the source");
}

/// The file may grow by so many pages.
async fn most_pages(store: &SqliteStore, max: i64) {
    let grow = move |ledger: &mut Ledger| {
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
    most_pages(&store, 4).await;

    let large = new_job(&store, 1_000_000);
    let small = new_job(&store, 10);
    // In one group: the large one finds no room, and takes nobody with it.
    let (refused, taken) = tokio::join!(
        store.insert(vec![large.clone()], declared.clone()),
        store.insert(vec![small.clone()], declared.clone())
    );
    let Err(StoreError::Busy(text)) = refused else { panic!("{refused:?}") };
    assert!(text.contains("wharf.db") && text.contains("free some"), "{text}");
    taken.unwrap();
    assert_eq!(store.job(large.id, declared.clone()).await.unwrap(), None);
    assert_eq!(store.claim(claim(9)).await.unwrap().leased.len(), 2);

    // Room was made: work goes on by itself.
    most_pages(&store, 10_000).await;
    store.insert(vec![large.clone()], declared.clone()).await.unwrap();
    assert_eq!(store.claim(claim(9)).await.unwrap().leased[0].lease.job, large.id);
}

#[tokio::test]
async fn an_end_its_children_and_its_values_find_room_together_or_not_at_all() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    let (parent, child) = (new_job(&store, 10), new_job(&store, 10));
    store.insert(vec![parent.clone()], declared.clone()).await.unwrap();
    let attempt = store.claim(claim(1)).await.unwrap().leased[0].lease.attempt;
    let (plugin, key): (PluginId, KvKey) = ("words".parse().unwrap(), "total".parse().unwrap());
    let mut changes = KvChanges::new(plugin.clone());
    changes.put(key.clone(), Some(vec![7; 1_000_000].into())).unwrap();
    let (children, changes, bill) = (vec![child.clone()], Some(Arc::new(changes)), Bill::default());
    let end = vec![(parent.id, Event::Succeeded { attempt, output: [1].into(), children, changes, bill })];
    most_pages(&store, 4).await;
    // The value is written last, and has no room: what was written before it is undone.
    assert!(matches!(store.record(end.clone()).await, Err(StoreError::Busy(_))));
    let state = async || store.job(parent.id, declared.clone()).await.unwrap().unwrap().job.standing.state.name();
    assert_eq!(state().await, StateName::Running);
    assert_eq!(store.job(child.id, declared.clone()).await.unwrap(), None);
    assert_eq!(store.value(plugin.clone(), key.clone()).await.unwrap(), None);
    most_pages(&store, 10_000).await;
    store.record(end).await.unwrap()[0].as_ref().unwrap();
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

/// An operation that holds up the writer: it tells when it has begun, and waits until it may go on.
fn held_up(
    store: &SqliteStore,
) -> (impl Future<Output = Result<(), StoreError>>, tokio::sync::oneshot::Receiver<()>, std::sync::mpsc::Sender<()>) {
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let mut began = Some(began);
    let wait = move |_: &mut Ledger| {
        began.take().map(|began| began.send(()));
        may_go_on.recv().map_err(|_| rusqlite::Error::InvalidQuery)
    };
    (store.writer.write_for_now(wait, |()| false), has_begun, go_on)
}

/// How `PRAGMA synchronous` stands in an operation: 2 waits for the disk at the commit, 1 does not.
fn synchronous(ledger: &mut Ledger) -> rusqlite::Result<i64> {
    ledger.conn.query_row("PRAGMA synchronous", [], |row| row.get(0))
}

#[tokio::test]
async fn only_what_a_power_cut_makes_void_does_not_wait_for_the_disk() {
    let (_folder, store) = store();
    let declared = Arc::new(LimitTable::default());
    assert_eq!(store.writer.write(synchronous, |_| false).await.unwrap(), 2);
    assert_eq!(store.writer.write_for_now(synchronous, |_| false).await.unwrap(), 1);
    store.insert(vec![new_job(&store, 10)], declared).await.unwrap();
    assert_eq!(store.claim(claim(1)).await.unwrap().leased.len(), 1);
    assert_eq!(store.writer.write(synchronous, |_| false).await.unwrap(), 2, "also after a claim");

    // What was asked together: what need not last is done first, though it was asked last.
    let (first, has_begun, go_on) = held_up(&store);
    let done = Arc::new(AtomicU32::new(0));
    let counted = |done: &Arc<AtomicU32>| {
        let done = done.clone();
        move |ledger: &mut Ledger| Ok((done.fetch_add(1, Ordering::Relaxed), synchronous(ledger)?))
    };
    let others = async {
        has_begun.await.unwrap();
        tokio::join!(
            store.writer.write(counted(&done), |_| false),
            store.writer.write_for_now(counted(&done), |_| false),
            async { go_on.send(()).unwrap() },
        )
    };
    let (first, (lasting, for_now, ())) = tokio::join!(first, others);
    first.unwrap();
    assert_eq!((for_now.unwrap(), lasting.unwrap()), ((0, 1), (1, 2)));
}

#[tokio::test]
async fn a_commit_that_the_disk_did_not_confirm_may_have_been_written() {
    let (_folder, store) = store();
    let fails = Arc::new(AtomicU32::new(0));
    let unconfirmed = |fails: &Arc<AtomicU32>| {
        let fails = fails.clone();
        move |_: &mut Ledger| {
            fails.fetch_add(1, Ordering::Relaxed);
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err::<(), _>(rusqlite::Error::SqliteFailure(code, None))
        }
    };
    let (first, has_begun, go_on) = held_up(&store);
    let others = async {
        has_begun.await.unwrap();
        tokio::join!(
            store.writer.write(unconfirmed(&fails), |()| false),
            store.writer.write(synchronous, |_| false),
            async { go_on.send(()).unwrap() },
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
    let (stuck, has_begun, go_on) = held_up(&store);
    let read = async {
        has_begun.await.unwrap();
        let seen = store.job(job.id, declared.clone()).await.unwrap();
        go_on.send(()).unwrap();
        seen
    };
    let (stuck, seen) = tokio::join!(stuck, read);
    stuck.unwrap();
    assert_eq!(seen.unwrap().job.id, job.id);
}
