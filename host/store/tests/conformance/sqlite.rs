//! What only a file can get wrong: its lock, its version, a sudden end.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use wharf_core::job::StateName;
use wharf_core::lifecycle::Event;
use wharf_store::{OpenError, SqliteStore, Store, open};

use crate::stage::{COUNT, HandClock, Kind, LEASE, Stage, at_most, block_on, ids};

fn refused(address: &str) -> OpenError {
    match block_on(open(address, HandClock::new())) {
        Ok(_) => panic!("{address} was opened"),
        Err(error) => error,
    }
}

fn refused_file(path: &Path) -> String {
    refused(path.to_str().unwrap()).to_string()
}

/// A file as it was at this moment, in a folder of its own: what a crash would have left.
fn crash_image(stage: &Stage) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["wharf.db", "wharf.db-wal"] {
        std::fs::copy(stage.folder.path().join(name), folder.path().join(name)).unwrap();
    }
    let file = folder.path().join("wharf.db");
    (folder, file)
}

#[test]
fn a_second_host_is_refused() {
    let stage = block_on(Stage::new(Kind::Sqlite));
    let text = refused_file(&stage.file());
    assert!(matches!(refused(stage.file().to_str().unwrap()), OpenError::StopOtherHost { .. }));
    assert!(text.contains("wharf.db: another host uses it"), "{text}");
    let link = stage.folder.path().join("link.db");
    std::os::unix::fs::symlink(stage.file(), &link).unwrap();
    assert!(matches!(refused(link.to_str().unwrap()), OpenError::StopOtherHost { .. }), "nor by another name");
    let Stage { store, folder, clock, .. } = stage;
    drop(store);
    SqliteStore::open(folder.path().join("wharf.db"), clock).expect("the first host is gone");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_alone() {
    let stage = block_on(Stage::new(Kind::Sqlite));
    let file = stage.file();
    drop(stage.store);
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(refused(file.to_str().unwrap()), OpenError::TakeNewerHost { found: 99, .. }));
    let text = refused_file(&file);
    assert!(text.contains("newer Wharf") && text.contains("99"), "{text}");
    let version: i64 = Connection::open(&file).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database at all, but long enough to look like one from afar").unwrap();
    assert!(refused_file(&text).contains("not a SQLite database"), "{}", refused_file(&text));
    assert_eq!(std::fs::read(&text).unwrap()[..3], *b"not", "it is left as it was");

    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE recipes (title TEXT)").unwrap();
    assert!(refused_file(&other).contains("another program"), "{}", refused_file(&other));
    assert!(refused_file(folder.path()).contains("it is a folder"));
    assert!(refused_file(&folder.path().join("no/such/wharf.db")).contains("there is no folder"));
}

#[test]
fn addresses_name_stores() {
    let folder = tempfile::tempdir().unwrap();
    let clock = HandClock::new();
    for good in ["memory:", &format!("sqlite:{}", folder.path().join("a.db").display())] {
        block_on(open(good, clock.clone())).unwrap();
    }
    block_on(open(folder.path().join("b.db").to_str().unwrap(), clock.clone())).unwrap();
    assert!(folder.path().join("a.db").exists() && folder.path().join("b.db").exists());
    for bad in ["", "memory:x", "sqlite:", "mysql://localhost/jobs"] {
        let error = refused(bad);
        assert!(matches!(error, OpenError::MendAddress { .. }), "{error}");
        assert!(error.to_string().contains(bad) && error.to_string().contains("expected"), "{error}");
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await.limit(COUNT, at_most(2, None));
        let jobs = stage.add_many(COUNT, "a", 5).await;
        let running = stage.claim(9).await;
        stage.succeed(&running[0]).await.unwrap();
        let third = stage.claim_one().await;

        let (_folder, file) = crash_image(&stage);
        let clock = stage.clock.clone();
        let after = Stage { store: Arc::new(SqliteStore::open(file, clock).unwrap()), ..stage };
        assert_eq!(after.state(jobs[0]).await, StateName::Succeeded);
        assert_eq!(after.seen(jobs[0]).await.job.result.as_deref(), Some(b"result".as_slice()));
        // The dead host's leases are over at once; until they are reclaimed they still count.
        assert!(after.claim(9).await.is_empty());
        assert_eq!(after.store.reclaim(9).await.unwrap(), [running[1].lease.job, third.lease.job]);
        let again = after.claim(9).await;
        assert_eq!(ids(&again), [jobs[1], jobs[2]]);
        assert!(again.iter().all(|leased| leased.lease.attempt == 2));
        assert!(after.store.next_id() > jobs[4]);
    });
}

#[test]
fn ids_of_forgotten_jobs_are_not_used_again() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        // Enqueued by a clock that was ahead.
        stage.pass(1000 * LEASE);
        let last = stage.add(COUNT, "").await;
        stage.record(last, Event::CancelAsked).await.unwrap();
        stage.pass(LEASE);
        assert_eq!(stage.store.forget(stage.store.now(), 1).await.unwrap(), 1);
        let (_folder, file) = crash_image(&stage);
        let store = SqliteStore::open(file, HandClock::new()).unwrap();
        assert!(store.next_id() > last);
    });
}
