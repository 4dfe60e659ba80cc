//! Whose a file is: today's files are known, everybody else's are refused by name and left as they were.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use wharf_core::ids::JobId;
use wharf_core::job::StateName;
use wharf_core::kv::KvUsage;
use wharf_store::{OpenError, SqliteStore};

use crate::stage::{COUNT, HandClock, Kind, Stage, at_most, block_on, ids};

const SCRIPTS: [&str; 3] = [
    include_str!("../../migrations/sqlite/0001_jobs.sql"),
    include_str!("../../migrations/sqlite/0002_ready.sql"),
    include_str!("../../migrations/sqlite/0003_kv.sql"),
];

fn refused(file: &Path) -> OpenError {
    match SqliteStore::open(file, HandClock::new()) {
        Ok(_) => panic!("{} was opened", file.display()),
        Err(error) => error,
    }
}

/// All that stands in a folder, but for locks.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
    named.filter(|(name, _)| !name.ends_with(".lock")).collect()
}

/// A database that these statements made.
fn database(file: &Path, statements: &str) {
    Connection::open(file).unwrap().execute_batch(statements).unwrap();
}

/// The same, as a crash leaves it: what the statements after the first ones did stands in the log alone.
fn with_log(file: &Path, first: &str, logged: &str) {
    let conn = Connection::open(file).unwrap();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    conn.execute_batch(first).unwrap();
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    conn.execute_batch(logged).unwrap();
    drop(conn);
    std::fs::remove_file(file.with_extension("db-shm")).unwrap();
    assert!(std::fs::metadata(file.with_extension("db-wal")).unwrap().len() > 0);
}

/// A file of version 0.1: its three scripts, its mark, and a job in each place where one may be.
fn of_version_0_1(file: &Path) {
    database(file, &format!("PRAGMA journal_mode = WAL; BEGIN; {}; COMMIT;", SCRIPTS.join(";")));
    database(
        file,
        "INSERT INTO names VALUES (1, 'words/count');
         INSERT INTO jobs (id, state, grp, key, task, priority, due, attempt, enqueued_at, finished_at, bytes, payload, output)
             VALUES (11, 1, 1, 'a', 1, 0, 1, 0, 1, NULL, 7, 'payload', NULL),
                    (12, 1, 1, 'a', 1, 0, 1, 0, 1, NULL, 7, 'payload', NULL),
                    (13, 0, 1, 'b', 1, 0, 8000000000000000, 0, 1, NULL, 7, 'payload', NULL),
                    (14, 3, 1, 'a', 1, 0, 1, 1, 1, 2, 7, 'payload', 'result');
         INSERT INTO ready VALUES (1, 0, 1, 11), (1, 0, 1, 12);
         INSERT INTO claims VALUES (5, 7, 1, 9000000000000000, x'0b0000000000000001000000');
         INSERT INTO kv VALUES ('words', 'total', x'07'); INSERT INTO kv_usage VALUES ('words', 1, 6);
         PRAGMA user_version = 3; PRAGMA application_id = 0x57687266;",
    );
}

#[test]
fn a_file_of_version_0_1_is_known_for_what_it_is() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.db");
        of_version_0_1(&file);
        let stage = Stage::new(Kind::Memory).await.limit(COUNT, at_most(2, None));
        let stage = Stage { store: Arc::new(SqliteStore::open(&file, stage.clock.clone()).unwrap()), ..stage };
        let job = |number: u64| JobId::from_number(number).unwrap();
        let states =
            [(11, StateName::Running), (12, StateName::Waiting), (13, StateName::Waiting), (14, StateName::Succeeded)];
        for (number, state) in states {
            assert_eq!(stage.state(job(number)).await, state, "{number}");
        }
        assert_eq!(stage.seen(job(14)).await.job.result.as_deref(), Some(b"result".as_slice()));
        let (usage, _) = stage.store.usage("words".parse().unwrap(), vec![]).await.unwrap();
        assert_eq!(usage, KvUsage { values: 1, bytes: 6 });
        assert_eq!(stage.store.reclaim(9).await.unwrap(), [job(11)], "its host is gone");
        assert_eq!(ids(&stage.claim(9).await), [job(11), job(12)]);
        drop(stage);
        let mark = |name: &str| -> i64 {
            Connection::open(&file).unwrap().query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
        };
        assert_eq!(mark("application_id"), 0x5768_7266);
        assert!(mark("user_version") >= 3);
    });
}

#[test]
fn what_is_somebody_elses_is_refused_by_name_and_left_as_it_was() {
    const TABLE: &str = "CREATE TABLE recipes (title TEXT); INSERT INTO recipes VALUES ('soup');";
    const OTHER: &str = "database of another program";
    type Make = fn(&Path);
    let cases: &[(&str, Make, &str)] = &[
        ("without a mark", |file| database(file, TABLE), OTHER),
        ("with a log that is empty", |file| database(file, &format!("PRAGMA journal_mode = WAL; {TABLE}")), OTHER),
        ("as a crash left it", |file| with_log(file, TABLE, "INSERT INTO recipes VALUES ('bread')"), OTHER),
        ("whose tables stand in its log", |file| with_log(file, "", TABLE), OTHER),
        ("whose mark stands in its log", |file| with_log(file, "", "PRAGMA application_id = 0x12345678"), OTHER),
        ("with a mark alone", |file| database(file, "PRAGMA application_id = 0x12345678"), "0x12345678"),
        ("with a version alone", |file| database(file, "PRAGMA user_version = 3"), OTHER),
        ("with the version before the first", |file| of_version(file, 0), "with version 0, which none has written"),
        ("with no version at all", |file| of_version(file, -3), "with version -3, which none has written"),
        ("of a newer version", |file| of_version(file, 99), "newer Wharf (its version is 99"),
        ("that is text", |file| std::fs::write(file, [b'x'; 5000]).unwrap(), "not a SQLite database"),
        ("that is a word", |file| std::fs::write(file, b"word").unwrap(), "not a SQLite database"),
    ];
    fn of_version(file: &Path, version: i64) {
        of_version_0_1(file);
        Connection::open(file).unwrap().pragma_update(None, "user_version", version).unwrap();
    }
    for (what, make, text) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.db");
        make(&file);
        let before = contents(folder.path());
        let error = refused(&file).to_string();
        assert!(error.contains(text) && error.contains("wharf.db"), "a file {what}: {error}");
        assert_eq!(contents(folder.path()), before, "a file {what} is left as it was");
    }
}

#[test]
fn a_newer_version_that_stands_in_the_log_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    with_log(
        &file,
        &format!("{}; PRAGMA user_version = 3; PRAGMA application_id = 0x57687266", SCRIPTS.join(";")),
        "PRAGMA user_version = 99",
    );
    let before = contents(folder.path());
    assert!(matches!(refused(&file), OpenError::TakeNewerHost { found: 99, .. }));
    let mut after = contents(folder.path());
    after.retain(|name, _| !name.ends_with("-shm"));
    assert_eq!(after, before);
}

#[test]
fn a_file_with_nothing_in_it_is_taken() {
    type Make = fn(&Path);
    let cases: [(&str, Make); 3] = [
        ("of no bytes", |file| std::fs::write(file, b"").unwrap()),
        ("of no tables", |file| database(file, "CREATE TABLE t (a); DROP TABLE t; VACUUM")),
        ("of no tables, with a log", |file| database(file, "PRAGMA journal_mode = WAL")),
    ];
    for (what, make) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.db");
        make(&file);
        SqliteStore::open(&file, HandClock::new()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// SQLite would delete the log of a file that is empty, and with it what a crash left there.
#[test]
fn a_log_without_its_file_is_kept() {
    for is_empty in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.db");
        std::fs::write(folder.path().join("wharf.db-wal"), [7; 5000]).unwrap();
        if is_empty {
            std::fs::write(&file, b"").unwrap();
        }
        let before = contents(folder.path());
        let error = refused(&file).to_string();
        assert!(error.contains("wharf.db-wal still holds 5000 bytes"), "{error}");
        assert_eq!(contents(folder.path()), before);
        std::fs::remove_file(folder.path().join("wharf.db-wal")).unwrap();
        SqliteStore::open(&file, HandClock::new()).unwrap();
    }
}

#[test]
fn what_is_damaged_is_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    of_version_0_1(&file);
    let whole = std::fs::read(&file).unwrap();
    let page = u64::from(u16::from_be_bytes([whole[16], whole[17]]));
    let pages = whole.len() as u64 / page;
    assert!(pages > 5);
    let mut refusals = 0;
    for damaged in 0..pages {
        std::fs::write(&file, &whole).unwrap();
        // The head of the first page stays, so that it is known for Wharf's.
        let from = if damaged == 0 { 100 } else { damaged * page };
        let rest = vec![0xa5; (page - from % page) as usize];
        std::fs::File::options().write(true).open(&file).unwrap().write_all_at(&rest, from).unwrap();
        // What nobody needs to begin with is found when it is needed.
        if let Err(error) = SqliteStore::open(&file, HandClock::new()) {
            let text = error.to_string();
            assert!(text.contains("damaged") && text.contains("restore it from a backup"), "page {damaged}: {text}");
            refusals += 1;
        }
    }
    assert!(refusals >= 3, "only {refusals} of {pages} pages were missed");
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&file).to_string().contains("damaged"), "{}", refused(&file));
}

#[test]
fn a_file_with_several_names_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("wharf.db"), folder.path().join("other.db"));
    drop(SqliteStore::open(&file, HandClock::new()).unwrap());
    std::fs::hard_link(&file, &other).unwrap();
    let before = contents(folder.path());
    for name in [&file, &other] {
        let error = refused(name).to_string();
        assert!(error.contains("2 names (hard links)") && error.contains("-samefile"), "{error}");
    }
    assert_eq!(contents(folder.path()), before);
    std::fs::remove_file(&other).unwrap();
    SqliteStore::open(&file, HandClock::new()).unwrap();
}

/// The locks that this process has on a file: SQLite's, and the host's own.
fn locks_on(file: &Path) -> Vec<String> {
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(file).unwrap());
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let ours = [format!(" {} ", std::process::id()), format!(":{inode} ")];
    let mut found: Vec<String> = all
        .lines()
        .filter(|line| ours.iter().all(|part| line.contains(part)))
        .filter_map(|line| Some(line.split_once(": ")?.1.to_owned()))
        .collect();
    found.sort();
    found
}

/// A process that closes a file loses every lock that it has on it, SQLite's among them: then another program that ends takes
/// itself for the last, and deletes the log.
#[test]
fn who_is_refused_ends_nobodys_locks() {
    let stage = block_on(Stage::new(Kind::Sqlite));
    let before = locks_on(&stage.file());
    assert!(
        before.iter().any(|lock| lock.starts_with("POSIX")) && before.iter().any(|lock| lock.starts_with("FLOCK")),
        "{before:?}"
    );
    let (link, other) = (stage.folder.path().join("link.db"), stage.folder.path().join("other.db"));
    std::os::unix::fs::symlink(stage.file(), &link).unwrap();
    std::fs::hard_link(stage.file(), &other).unwrap();
    // With its lock file in place, and without.
    for _ in 0..2 {
        for name in [&stage.file(), &link, &other] {
            assert!(matches!(refused(name), OpenError::StopOtherHost { .. }), "{}", refused(name));
        }
        std::fs::remove_file(stage.folder.path().join("wharf.db.lock")).unwrap();
    }
    assert_eq!(locks_on(&stage.file()), before);
}
