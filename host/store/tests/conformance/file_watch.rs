//! Files that are moved or truncated while a store has them open, and a log that a reader pins.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::job::NewJob;
use wharf_core::node::Node;
use wharf_store::{JobFilter, Queue as _, SqliteStore, StoreError};

use crate::stage::{COUNT, Kind, LEASE, Stage, block_on, succeeded};

fn node(stage: &Stage) -> Node {
    Node {
        id: NodeId(1),
        name: "here".to_owned(),
        version: "0.1.0".to_owned(),
        started: stage.store.now(),
        seen: stage.store.now(),
        capacity: 1,
        running: 0,
        memory_budget: Some(1 << 30),
        draining: false,
        stopping: false,
        settings: None,
        plugins: vec![],
        pending: Vec::new(),
    }
}

async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the store has noticed by itself that a file is lost, and returns its error.
async fn found_out(stage: &Stage) -> String {
    eventually("the loss is noticed", async || match stage.store.register(node(stage), LEASE).await {
        Ok(()) => None,
        Err(StoreError::Broken(why)) => Some(why),
        Err(other) => panic!("{other}"),
    })
    .await
}

/// Asserts that every call fails with the same error, and returns it.
async fn is_broken(stage: &Stage, leased: JobId) -> String {
    let Err(StoreError::Broken(why)) = stage.store.insert(vec![stage.new_job(COUNT, "")], stage.declared.clone()).await
    else {
        panic!("it was acknowledged")
    };
    let answers = [
        stage.store.claim(stage.wish(1)).await.map(drop),
        stage.store.record(Arc::new(vec![(leased, succeeded(1))])).await.map(drop),
        stage.store.renew(vec![], LEASE).await.map(drop),
        stage.store.reclaim(1).await.map(drop),
        stage.store.job(leased, stage.declared.clone()).await.map(drop),
        stage.store.jobs(JobFilter { max: 1, ..JobFilter::default() }).await.map(drop),
        stage.store.stats().await.map(drop),
        stage.store.register(node(stage), LEASE).await,
    ];
    for answer in answers {
        assert_eq!(answer.unwrap_err().to_string(), format!("the store is broken: {why}"));
    }
    why
}

/// Makes a store of two jobs, of which the first runs, and changes its files.
async fn broken_by(act: impl FnOnce(&Path)) -> (Stage, [JobId; 2]) {
    let stage = Stage::new(Kind::Sqlite).await;
    let jobs = [stage.add(COUNT, "").await, stage.add(COUNT, "").await];
    assert_eq!(stage.claim_one().await.lease.job, jobs[0]);
    act(&stage.file());
    (stage, jobs)
}

fn log(file: &Path) -> PathBuf {
    file.with_extension("db-wal")
}

fn index(file: &Path) -> PathBuf {
    file.with_extension("db-shm")
}

fn truncate(file: &Path, length: u64) {
    File::options().write(true).open(file).unwrap().set_len(length).unwrap();
}

/// Opens a copy of the file alone, as a `kill -9` of the host would leave it after its log is gone.
fn reopened_alone(stage: &Stage) -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    std::fs::copy(stage.file(), &file).unwrap();
    let store = SqliteStore::open(&file, stage.clock.clone()).unwrap();
    (folder, store)
}

#[test]
fn nothing_is_acknowledged_once_the_file_is_not_at_its_path() {
    type Act = fn(&Path);
    let ways: &[(Act, &str)] = &[
        (|file| std::fs::remove_file(file).unwrap(), "is missing"),
        (|file| std::fs::rename(file, file.with_extension("old")).unwrap(), "is missing"),
        (
            |file| {
                let other = file.with_extension("other");
                std::fs::copy(file, &other).unwrap();
                std::fs::rename(other, file).unwrap();
            },
            "was replaced by another file",
        ),
    ];
    for (act, what) in ways {
        block_on(async {
            let (stage, jobs) = broken_by(act).await;
            // The first write notices it: it is in a file that a restart will not find, unless somebody moves it back.
            let first = stage.store.insert(vec![stage.new_job(COUNT, "")], stage.declared.clone()).await;
            match first {
                Err(StoreError::Unknown(why) | StoreError::Broken(why)) => assert!(why.contains(what), "{why}"),
                other => panic!("{what}: {other:?}"),
            }
            let why = is_broken(&stage, jobs[0]).await;
            let how = format!("/proc/{}/fd", std::process::id());
            assert!(why.contains("wharf.db") && why.contains(what) && why.contains(&how), "{why}");
        });
        // The loss is also noticed without a write.
        block_on(async {
            let (stage, jobs) = broken_by(act).await;
            let why = found_out(&stage).await;
            assert!(why.contains(what), "{why}");
            assert_eq!(is_broken(&stage, jobs[0]).await, why);
        });
    }
}

/// One of the two paths still leads to the file, and the other does not: the log would be looked for beside that.
#[test]
fn a_file_that_is_opened_through_a_link_is_watched_at_both_paths() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("one.db"), folder.path().join("wharf.db"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for act in [0, 1] {
            let stage = Stage::new(Kind::Memory).await;
            let stage = Stage { store: Arc::new(SqliteStore::open(&link, stage.clock.clone()).unwrap()), ..stage };
            stage.add(COUNT, "").await;
            let leads_to = |to: &Path| {
                std::fs::remove_file(&link).unwrap();
                std::os::unix::fs::symlink(to, &link).unwrap();
            };
            if act == 0 {
                // To another file.
                std::fs::write(folder.path().join("two.db"), b"").unwrap();
                leads_to(&folder.path().join("two.db"));
            } else {
                // To the same file, at a path where its log is not.
                std::fs::rename(&file, folder.path().join("three.db")).unwrap();
                leads_to(&folder.path().join("three.db"));
            }
            found_out(&stage).await;
            drop(stage);
            if act == 0 {
                leads_to(&file);
            }
        }
    });
}

#[test]
fn a_store_whose_folder_is_moved_and_moved_back_is_whole() {
    block_on(async {
        let stage = Stage::new(Kind::Memory).await;
        let (folder, moved) = (stage.folder.path().join("data"), stage.folder.path().join("moved"));
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("wharf.db");
        let stage = Stage { store: Arc::new(SqliteStore::open(&file, stage.clock.clone()).unwrap()), ..stage };
        let kept = stage.add(COUNT, "").await;
        std::fs::rename(&folder, &moved).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let why = found_out(&stage).await;
        assert!(why.contains("data/wharf.db is missing"), "{why}");
        std::fs::remove_dir(&folder).unwrap();
        std::fs::rename(&moved, &folder).unwrap();
        // It is not known what happened to it in the meantime.
        is_broken(&stage, kept).await;
        let Stage { store, folder, clock, declared, .. } = stage;
        drop(store);
        let again = SqliteStore::open(&file, clock).unwrap();
        assert!(again.job(kept, declared).await.unwrap().is_some());
        drop(folder);
    });
}

#[test]
fn the_contents_of_a_lost_log_are_copied_into_the_file() {
    type Act = fn(&Path);
    let ways: &[(Act, &str)] = &[
        (|file| std::fs::remove_file(log(file)).unwrap(), "wharf.db-wal is missing"),
        (
            |file| {
                std::fs::remove_file(log(file)).unwrap();
                std::fs::write(log(file), b"").unwrap();
            },
            "wharf.db-wal was replaced by another file",
        ),
        (|file| std::fs::remove_file(index(file)).unwrap(), "wharf.db-shm is missing"),
    ];
    for (act, what) in ways {
        block_on(async {
            let (stage, jobs) = broken_by(act).await;
            let why = found_out(&stage).await;
            assert!(why.contains(what) && why.contains("are being copied into the file"), "{why}");
            assert_eq!(is_broken(&stage, jobs[0]).await, why);
            let after = async |store: &SqliteStore| {
                for job in jobs {
                    assert!(store.job(job, stage.declared.clone()).await.unwrap().is_some(), "{what}: {job}");
                }
            };
            eventually("the log is copied into the file", async || {
                let (_folder, store) = reopened_alone(&stage);
                store.job(jobs[1], stage.declared.clone()).await.unwrap().map(drop)
            })
            .await;
            let (_folder, store) = reopened_alone(&stage);
            after(&store).await;
        });
    }
}

#[test]
fn a_truncated_file_is_left_unchanged() {
    type Act = fn(&Path);
    let ways: &[(Act, &str)] = &[
        (|file| truncate(file, 0), "wharf.db was truncated from"),
        (|file| truncate(file, 4096), "wharf.db was truncated from"),
        (|file| truncate(&log(file), 0), "wharf.db-wal was truncated from"),
        (|file| truncate(&log(file), 9000), "wharf.db-wal was truncated from"),
    ];
    for (act, what) in ways {
        block_on(async {
            // Half of the jobs are in the file, half in the log.
            let stage = Stage::new(Kind::Sqlite).await;
            let jobs = stage.add_many(COUNT, "", 20).await;
            let outside = Connection::open(stage.file()).unwrap();
            outside.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            drop(outside);
            stage.add_many(COUNT, "", 20).await;
            stage.claim_one().await;
            // The size that the store expects is that of the last commit.
            stage.add(COUNT, "").await;
            act(&stage.file());
            let lengths = || [stage.file(), log(&stage.file())].map(|file| std::fs::metadata(file).unwrap().len());
            let before = lengths();
            let first = stage.store.insert(vec![stage.new_job(COUNT, "")], stage.declared.clone()).await;
            assert!(first.is_err(), "{what}: {first:?}");
            let why = is_broken(&stage, jobs[0]).await;
            assert!(why.contains(what) && why.contains("from a backup"), "{why}");
            assert_eq!(lengths()[0], before[0], "{what}: nothing was copied into it");
            let Stage { store, folder, .. } = stage;
            drop(store);
            let file = folder.path().join("wharf.db");
            assert_eq!(std::fs::metadata(&file).unwrap().len(), before[0], "{what}: nor at the end");
            assert!(log(&file).exists(), "{what}: its log is kept");
        });
    }
}

/// SQLite itself makes files smaller, which is not a loss.
#[test]
fn another_program_may_vacuum_and_checkpoint() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        let outside = Connection::open(stage.file()).unwrap();
        let do_outside = |statement: &str| outside.query_row(statement, [], |_| Ok(())).ok();
        let large = NewJob { payload: vec![7; 4_000_000].into(), ..stage.new_job(COUNT, "") };
        stage.insert(large.clone()).await;
        let leased = stage.claim_one().await;
        stage.succeed(&leased).await.unwrap();
        do_outside("PRAGMA wal_checkpoint(TRUNCATE)");
        assert_eq!(std::fs::metadata(log(&stage.file())).unwrap().len(), 0, "all of the log is in the file");
        stage.add(COUNT, "").await;
        let length = || std::fs::metadata(stage.file()).unwrap().len();
        let before = length();
        stage.pass(LEASE);
        assert_eq!(stage.delete_finished(stage.clock_in(1), 9).await.unwrap(), 1);
        outside.execute_batch("VACUUM").unwrap();
        do_outside("PRAGMA wal_checkpoint(TRUNCATE)");
        assert!(length() < before, "it is smaller than it was");
        stage.add(COUNT, "").await;
        assert_eq!(stage.claim(9).await.len(), 2);
        stage.store.register(node(&stage), LEASE).await.unwrap();
    });
}

#[test]
fn a_log_that_another_program_pins_is_reported_and_copied_when_that_ends() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        let outside = Connection::open(stage.file()).unwrap();
        stage.add(COUNT, "").await;
        assert_eq!(stage.store.pinned_log(), None);
        outside.execute_batch("BEGIN; SELECT count(*) FROM jobs;").unwrap();
        let length = || std::fs::metadata(log(&stage.file())).unwrap().len();
        let large = || NewJob { payload: vec![7; 8 << 20].into(), ..stage.new_job(COUNT, "") };
        while length() < 160 << 20 {
            stage.insert(large()).await;
        }
        let pinned = eventually("the pinned log is reported", async || stage.store.pinned_log()).await;
        assert!(pinned.log.ends_with("wharf.db-wal") && pinned.bytes >= 128 << 20, "{pinned:?}");
        outside.execute_batch("COMMIT").unwrap();
        // Nothing is written in the meantime.
        eventually("the log is copied into the file", async || stage.store.pinned_log().is_none().then_some(())).await;
        let min = 160 << 20;
        assert!(std::fs::metadata(stage.file()).unwrap().len() >= min, "all of the log is in the file");
        // With the next writes it restarts.
        eventually("it is short again", async || {
            stage.add(COUNT, "").await;
            (length() <= 70 << 20).then_some(())
        })
        .await;
    });
}
