//! Which files are stores: those of other versions and other programs are refused by name and left unchanged.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use wharf_store::{OpenError, SqliteStore};

use crate::stage::{COUNT, HandClock, Kind, Stage, block_on};

/// The migrations of Wharf 0.1.
const SCRIPTS_0_1: [&str; 4] = [
    include_str!("data/sqlite-0.1/0001_jobs.sql"),
    include_str!("data/sqlite-0.1/0002_ready.sql"),
    include_str!("data/sqlite-0.1/0003_kv.sql"),
    include_str!("data/sqlite-0.1/0004_marks.sql"),
];
/// The rows of a few jobs, as Wharf 0.1 wrote them.
const JOBS_0_1: &str = include_str!("data/sqlite-0.1/jobs.sql");

/// Returns the statements that make a store of Wharf 0.1 as that version made it, with a few jobs.
fn wharf_0_1() -> String {
    let scripts = SCRIPTS_0_1.join(";");
    format!("BEGIN; {scripts}; PRAGMA user_version = 4; PRAGMA application_id = 0x57687266; COMMIT; {JOBS_0_1}")
}

fn refused(file: &Path) -> OpenError {
    match SqliteStore::open(file, HandClock::new()) {
        Ok(_) => panic!("{} was opened", file.display()),
        Err(error) => error,
    }
}

/// Returns the contents of all files in a folder, except lock files.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
    named.filter(|(name, _)| !name.ends_with(".lock")).collect()
}

/// Runs statements on a database file, which is created if it does not exist.
fn database(file: &Path, statements: &str) {
    Connection::open(file).unwrap().execute_batch(statements).unwrap();
}

/// Makes a database as a crash leaves it: what the second statements did is in the log alone.
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

/// Makes a store of this version, with a few jobs, and closes it.
fn store_with_jobs(file: &Path) {
    block_on(async {
        let stage = Stage::new(Kind::Memory).await;
        let stage = Stage { store: Arc::new(SqliteStore::open(file, stage.clock.clone()).unwrap()), ..stage };
        for key in ["a", "b"] {
            stage.add_many(COUNT, key, 3).await;
        }
        let leased = stage.claim(2).await;
        stage.succeed(&leased[0]).await.unwrap();
    });
}

/// Wharf 0.1's own files are refused by name. Nothing in their folder changes, including their log and its index.
#[test]
fn a_store_of_wharf_0_1_is_refused_by_name_and_left_unchanged() {
    type Make = fn(&Path);
    let cases: &[(&str, Make)] = &[
        ("that was closed", |file| database(file, &wharf_0_1())),
        ("that was never migrated to the end", |file| {
            database(file, &format!("{}; PRAGMA application_id = 0x57687266", SCRIPTS_0_1[0]));
        }),
        ("whose jobs are in its log", |file| {
            with_log(file, &wharf_0_1(), "UPDATE jobs SET priority = 7 WHERE id = 11")
        }),
        ("that was killed before its first checkpoint", |file| with_log(file, "", &wharf_0_1())),
        ("that was killed, with the index of its log", |file| {
            let folder = tempfile::tempdir().unwrap();
            let original = folder.path().join("wharf.db");
            let conn = Connection::open(&original).unwrap();
            conn.execute_batch("PRAGMA journal_mode = WAL").unwrap();
            conn.execute_batch(&wharf_0_1()).unwrap();
            for extension in ["db", "db-wal", "db-shm"] {
                std::fs::copy(original.with_extension(extension), file.with_extension(extension)).unwrap();
            }
        }),
    ];
    for (what, make) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.db");
        make(&file);
        let before = contents(folder.path());
        for _ in 0..2 {
            assert_eq!(
                refused(&file).to_string(),
                format!(
                    "could not open {}: it was written by Wharf 0.1, whose stores this version can't read; finish its jobs with \
                     Wharf 0.1, or set `store` to a new file",
                    file.display()
                ),
                "a store {what}"
            );
            assert_eq!(contents(folder.path()), before, "a store {what}");
        }
    }
}

/// The refusal depends on the file's `application_id` alone, so that it holds however many migrations follow: a store of 0.1
/// never passes for one of a later schema version.
#[test]
fn a_store_of_wharf_0_1_is_refused_whatever_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    database(&file, &wharf_0_1());
    for version in [-1, 0, 1, 2, 3, 4, 5, 99, i32::MAX] {
        Connection::open(&file).unwrap().pragma_update(None, "user_version", version).unwrap();
        let error = refused(&file).to_string();
        assert!(error.contains("written by Wharf 0.1"), "version {version}: {error}");
    }
}

#[test]
fn a_new_store_has_an_application_id_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    store_with_jobs(&file);
    let pragma = |name: &str| -> i64 {
        Connection::open(&file).unwrap().query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(pragma("application_id"), 0x5768_6632);
    assert!(pragma("user_version") >= 1);
    SqliteStore::open(&file, HandClock::new()).unwrap();
}

#[test]
fn the_file_of_another_program_or_a_newer_wharf_is_refused_and_left_unchanged() {
    const TABLE: &str = "CREATE TABLE recipes (title TEXT); INSERT INTO recipes VALUES ('soup');";
    const OTHER: &str = "the database of another program";
    type Make = fn(&Path);
    let cases: &[(&str, Make, &str)] = &[
        ("without an application_id", |file| database(file, TABLE), OTHER),
        ("with a log that is empty", |file| database(file, &format!("PRAGMA journal_mode = WAL; {TABLE}")), OTHER),
        ("as a crash left it", |file| with_log(file, TABLE, "INSERT INTO recipes VALUES ('bread')"), OTHER),
        ("whose tables are in its log", |file| with_log(file, "", TABLE), OTHER),
        ("whose application_id is in its log", |file| with_log(file, "", "PRAGMA application_id = 0x12345678"), OTHER),
        ("with an application_id alone", |file| database(file, "PRAGMA application_id = 0x12345678"), "0x12345678"),
        ("with a version alone", |file| database(file, "PRAGMA user_version = 3"), OTHER),
        ("with the version before the first", |file| of_version(file, 0), "its schema version is 0, expected 1 to"),
        ("with a negative version", |file| of_version(file, -3), "its schema version is -3, expected 1 to"),
        ("of a newer version", |file| of_version(file, 99), "newer Wharf (its version is 99"),
        ("that is text", |file| std::fs::write(file, [b'x'; 5000]).unwrap(), "not a SQLite database"),
        ("that is a word", |file| std::fs::write(file, b"word").unwrap(), "not a SQLite database"),
    ];
    fn of_version(file: &Path, version: i64) {
        store_with_jobs(file);
        Connection::open(file).unwrap().pragma_update(None, "user_version", version).unwrap();
    }
    for (what, make, text) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.db");
        make(&file);
        let before = contents(folder.path());
        let error = refused(&file).to_string();
        assert!(error.contains(text) && error.contains("wharf.db"), "a file {what}: {error}");
        assert_eq!(contents(folder.path()), before, "a file {what} is left unchanged");
    }
}

#[test]
fn a_newer_version_that_is_in_the_log_alone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    store_with_jobs(&file);
    with_log(&file, "", "PRAGMA user_version = 99");
    let before = contents(folder.path());
    assert!(matches!(refused(&file), OpenError::TakeNewerHost { found: 99, .. }));
    let mut after = contents(folder.path());
    after.retain(|name, _| !name.ends_with("-shm"));
    assert_eq!(after, before);
}

#[test]
fn an_empty_file_or_database_becomes_a_store() {
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

/// SQLite would delete the log of an empty file, and with it what a crash left there.
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
        assert!(error.contains("wharf.db-wal still contains 5000 bytes"), "{error}");
        assert_eq!(contents(folder.path()), before);
        std::fs::remove_file(folder.path().join("wharf.db-wal")).unwrap();
        SqliteStore::open(&file, HandClock::new()).unwrap();
    }
}

#[test]
fn a_damaged_file_is_reported_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.db");
    store_with_jobs(&file);
    let whole = std::fs::read(&file).unwrap();
    let page = u64::from(u16::from_be_bytes([whole[16], whole[17]]));
    let pages = whole.len() as u64 / page;
    assert!(pages > 5);
    let mut refusals = 0;
    for damaged in 0..pages {
        std::fs::write(&file, &whole).unwrap();
        // The header in the first page stays, so that the file is recognised as a store.
        let from = if damaged == 0 { 100 } else { damaged * page };
        let rest = vec![0xa5; (page - from % page) as usize];
        std::fs::File::options().write(true).open(&file).unwrap().write_all_at(&rest, from).unwrap();
        // Damage in a page that opening does not read is found later.
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

/// Returns the locks that this process has on a file: SQLite's, and the host's own.
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

/// A process that closes a file loses every lock that it has on it, including SQLite's: then another program that closes the
/// file considers itself the last one, and deletes the log.
#[test]
fn a_refused_open_keeps_the_locks_of_the_open_store() {
    let stage = block_on(Stage::new(Kind::Sqlite));
    let before = locks_on(&stage.file());
    assert!(
        before.iter().any(|lock| lock.starts_with("POSIX")) && before.iter().any(|lock| lock.starts_with("FLOCK")),
        "{before:?}"
    );
    let (link, other) = (stage.folder.path().join("link.db"), stage.folder.path().join("other.db"));
    std::os::unix::fs::symlink(stage.file(), &link).unwrap();
    std::fs::hard_link(stage.file(), &other).unwrap();
    // With its lock file, and without.
    for _ in 0..2 {
        for name in [&stage.file(), &link, &other] {
            assert!(matches!(refused(name), OpenError::StopOtherHost { .. }), "{}", refused(name));
        }
        std::fs::remove_file(stage.folder.path().join("wharf.db.lock")).unwrap();
    }
    assert_eq!(locks_on(&stage.file()), before);
}
