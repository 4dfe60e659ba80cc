//! Tests of the SQLite store alone: its lock, its version, a sudden end.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use wharf_core::job::{NewJob, StateName};
use wharf_core::lifecycle::Event;
use wharf_store::{JobFilter, OpenError, Queue as _, SqliteStore, Store, open};

use crate::stage::{COUNT, HandClock, Kind, LEASE, Stage, at_most, block_on, ids, usage};

fn refused(address: &str) -> OpenError {
    match block_on(open(address, HandClock::new())) {
        Ok(_) => panic!("{address} was opened"),
        Err(error) => error,
    }
}

fn refused_file(path: &Path) -> String {
    refused(path.to_str().unwrap()).to_string()
}

/// Copies the file and its log to a folder of their own, as a crash would have left them at this moment.
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
    assert!(matches!(refused(link.to_str().unwrap()), OpenError::StopOtherHost { .. }), "also under another name");
    let Stage { store, folder, clock, .. } = stage;
    drop(store);
    SqliteStore::open(folder.path().join("wharf.db"), clock).expect("the first host is gone");
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_left_unchanged() {
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
fn files_that_are_not_stores_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database at all, but long enough to look like one from afar").unwrap();
    assert!(refused_file(&text).contains("not a SQLite database"), "{}", refused_file(&text));
    assert_eq!(std::fs::read(&text).unwrap()[..3], *b"not", "it is left unchanged");

    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE recipes (title TEXT)").unwrap();
    assert!(refused_file(&other).contains("another program"), "{}", refused_file(&other));
    assert!(refused_file(folder.path()).contains("it is a folder"));
    assert!(refused_file(&folder.path().join("no/such/wharf.db")).contains("no/such does not exist; create it first"));
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
        // The leases of the killed host end at once; until they are reclaimed they still count.
        assert!(after.claim(9).await.is_empty());
        assert_eq!(after.store.reclaim(9).await.unwrap(), [running[1].lease.job, third.lease.job]);
        let again = after.claim(9).await;
        assert_eq!(ids(&again), [jobs[1], jobs[2]]);
        assert!(again.iter().all(|leased| leased.lease.attempt == 2));
        assert!(after.id() > jobs[4]);
    });
}

#[test]
fn ids_of_deleted_jobs_are_not_used_again() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        // Enqueued by a clock that was ahead.
        stage.pass(1000 * LEASE);
        let last = stage.add(COUNT, "").await;
        stage.record(last, Event::CancelRequested).await.unwrap();
        stage.pass(LEASE);
        assert_eq!(stage.delete_finished(stage.store.now(), 1).await.unwrap(), 1);
        let (_folder, file) = crash_image(&stage);
        let store = SqliteStore::open(file, HandClock::new()).unwrap();
        assert!(store.next_id().unwrap() > last);
    });
}

#[test]
fn payloads_and_results_of_any_size_are_read_back_unchanged() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        for bytes in [0, 1, 57, 58, 1024, 1025, 5000] {
            let job = NewJob { payload: vec![b'p'; bytes].into(), ..stage.new_job(COUNT, "") };
            stage.insert(job.clone()).await;
            let leased = stage.claim_one().await;
            assert_eq!(leased.payload, job.payload);
            let end = Event::Succeeded {
                attempt: 1,
                output: vec![b'r'; bytes].into(),
                children: vec![],
                changes: None,
                usage: usage(),
            };
            stage.record(job.id, end).await.unwrap();
            let seen = stage.seen(job.id).await.job;
            assert_eq!((seen.payload.len(), seen.result.map(|result| result.len())), (bytes, Some(bytes)));
        }
        assert_eq!(stage.delete_finished(stage.clock_in(1), 99).await.unwrap(), 7);
        let rows = |table: &str| -> i64 {
            let conn = Connection::open(stage.file()).unwrap();
            conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!(["jobs", "payloads", "outputs", "reports", "ready", "claims", "turns"].map(rows), [0; 7]);
    });
}

/// Short attempts share one row of `claims`; after a crash each is found there.
#[test]
fn attempts_that_only_a_claim_records_are_found_after_a_crash() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await.limit(COUNT, at_most(1, None));
        for key in ["a", "b", "c", "d"] {
            stage.add_many(COUNT, key, 2).await;
        }
        let running = stage.claim(9).await;
        assert_eq!(running.len(), 4);
        // One ends, one is renewed, one is cancelled; nothing more happens to the last.
        stage.succeed(&running[0]).await.unwrap();
        stage.store.renew(vec![running[1].lease], LEASE).await.unwrap();
        stage.record(running[2].lease.job, Event::CancelRequested).await.unwrap();

        let (_folder, file) = crash_image(&stage);
        let after = Stage { store: Arc::new(SqliteStore::open(&file, stage.clock.clone()).unwrap()), ..stage };
        let states = [StateName::Succeeded, StateName::Running, StateName::Running, StateName::Running];
        for (leased, state) in running.iter().zip(states) {
            assert_eq!(after.state(leased.lease.job).await, state);
        }
        // Each lane has one slot: only the one whose job ended has it free.
        assert_eq!(after.claim(9).await.len(), 1);
        let wanted = JobFilter { state: Some(StateName::Running), max: 9, ..JobFilter::default() };
        assert_eq!(after.store.jobs(wanted).await.unwrap().jobs.len(), 4);
        assert_eq!(after.store.reclaim(9).await.unwrap().len(), 3);
        let crashes = |number: usize| after.seen(running[number].lease.job);
        assert_eq!(crashes(1).await.job.status.crashes, 1);
        assert_eq!(after.state(running[2].lease.job).await, StateName::Cancelled);
        assert_eq!(crashes(3).await.job.status.crashes, 1);
        for leased in after.claim(9).await {
            after.succeed(&leased).await.unwrap();
        }
        let claims: i64 =
            Connection::open(&file).unwrap().query_row("SELECT count(*) FROM claims", [], |row| row.get(0)).unwrap();
        assert_eq!(claims, 1, "only that of the job that still runs");
    });
}

#[test]
fn files_are_for_the_host_s_user_and_keep_what_an_operator_set() {
    use std::os::unix::fs::PermissionsExt as _;
    let modes = |stage: &Stage| {
        ["", "-wal", "-shm", ".lock"].map(|suffix| {
            let file = format!("{}{suffix}", stage.file().display());
            std::fs::metadata(file).unwrap().permissions().mode() & 0o777
        })
    };
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        stage.add(COUNT, "secret").await;
        assert_eq!(modes(&stage), [0o600; 4]);
        let (file, clock) = (stage.file(), stage.clock.clone());
        let Stage { store, folder, .. } = stage;
        drop(store);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&file, clock.clone()).unwrap());
        let again = Stage { store, folder, clock, ..Stage::new(Kind::Memory).await };
        again.add(COUNT, "secret").await;
        assert_eq!(modes(&again), [0o640, 0o640, 0o640, 0o600], "the log has the mode of the database");
    });
}

#[test]
fn an_address_that_others_understand_in_another_way_is_refused_with_the_right_one() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().display();
    for (address, right) in [
        ("sqlite://wharf.db".to_owned(), "sqlite:wharf.db for a file in the working directory".to_owned()),
        ("sqlite:///a/wharf.db?mode=rwc".to_owned(), "sqlite:/a/wharf.db for a path from the root".to_owned()),
        ("sqlite://:memory:".to_owned(), "sqlite:wharf.db".to_owned()),
        (format!("sqlite:{inside}/a.db?mode=rwc"), format!("takes none; expected sqlite:{inside}/a.db")),
        (format!("{inside}/a.db?cache=shared&mode=rwc"), format!("takes none; expected sqlite:{inside}/a.db")),
        ("file:wharf.db?mode=rwc".to_owned(), "expected a path, sqlite:PATH".to_owned()),
        ("host=db password=secret".to_owned(), "postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()),
        ("user = me password = 'se/cr:et'".to_owned(), "postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()),
        ("postgres:me:secret@db".to_owned(), "postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned()),
        ("mysql://me:secret@db/jobs".to_owned(), "postgres://".to_owned()),
    ] {
        let error = refused(&address);
        let text = error.to_string();
        assert!(matches!(error, OpenError::MendAddress { .. }) && text.contains(&right), "{address}: {text}");
        assert!(!text.contains("secret") && !text.contains("cr:et"), "{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "no file was made");
    block_on(open(&format!("sqlite:{inside}/what?.db"), HandClock::new())).expect("a name is a name");
}
