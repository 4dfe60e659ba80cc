//! Backups, restores and checks.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use wharf_store::{MaintenanceError, OpenError, SqliteStore, backup, check, check_file, restore};

use crate::stage::{COUNT, Kind, LIST, SECOND, Stage, block_on, failed};

fn copied(from: &Path, to: &Path) -> wharf_store::BackupReport {
    backup(&from.display().to_string(), to, &mut |_, _| {}).unwrap()
}

fn count(contents: &[(&'static str, u64)], kind: &str) -> u64 {
    contents.iter().find(|(of, _)| *of == kind).unwrap_or_else(|| panic!("no {kind} in {contents:?}")).1
}

/// Fills a store with a job in each state, and a stored value.
async fn fill(stage: &Stage) {
    stage.add_many(COUNT, "k", 5).await;
    let leased = stage.claim(3).await;
    stage.succeed(&leased[0]).await.unwrap();
    stage.record(leased[1].lease.job, failed(1, None)).await.unwrap();
    stage.add(LIST, "").await;
    stage.pass(SECOND);
}

#[test]
fn a_backup_is_a_whole_store_and_a_restore_brings_it_back() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        fill(&stage).await;
        let folder = tempfile::tempdir().unwrap();
        let (copy, back) = (folder.path().join("copy.db"), folder.path().join("back.db"));
        let report = copied(&stage.file(), &copy);
        let kinds = ["waiting jobs", "running jobs", "succeeded jobs", "failed jobs"];
        assert_eq!(kinds.map(|kind| count(&report.contents, kind)), [3, 1, 1, 1]);
        assert_eq!(report.bytes, std::fs::metadata(&copy).unwrap().len());
        // What comes afterwards is not in it.
        stage.add(LIST, "").await;
        assert_eq!(check_file(&copy).await.unwrap().contents, report.contents);

        assert_eq!(restore(&back.display().to_string(), &copy).unwrap(), report.contents);
        assert_eq!(check_file(&back).await.unwrap().faults, []);
        let store = SqliteStore::open(&back, Arc::new(wharf_store::SystemClock)).unwrap();
        let error = restore(&back.display().to_string(), &copy).unwrap_err();
        assert!(matches!(error, MaintenanceError::Open(OpenError::StopOtherHost { .. })), "{error}");
        drop(store);
        let error = restore(&back.display().to_string(), &copy).unwrap_err().to_string();
        assert!(error.contains("it holds a store already"), "{error}");
        let error = backup(&back.display().to_string(), &copy, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("it exists; name a new file"), "{error}");
        assert!(!folder.path().join("copy.db.wharf-unfinished").exists() && copy.exists());
    });
}

#[test]
fn what_is_no_store_is_neither_backed_up_nor_restored() {
    block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let (text, none, new) = (folder.path().join("text"), folder.path().join("none"), folder.path().join("new"));
        std::fs::write(&text, "a".repeat(5000)).unwrap();
        for file in [&text, &none] {
            assert!(backup(&file.display().to_string(), &new, &mut |_, _| {}).is_err());
            assert!(restore(&new.display().to_string(), file).is_err());
            assert!(check_file(file).await.is_err());
        }
        assert!(!none.exists() && !new.exists(), "nothing is left behind");
    });
}

#[test]
fn a_check_finds_what_breaks_a_rule_of_a_file() {
    block_on(async {
        let breaks = [
            ("DELETE FROM ready", "each ready job is listed or runs"),
            (
                "UPDATE jobs SET state = 3 WHERE id IN (SELECT id FROM ready)",
                "each job that is listed as ready is ready",
            ),
            (
                "DELETE FROM jobs WHERE state = 1 AND id NOT IN (SELECT id FROM ready)",
                "each record of leases has a running job",
            ),
            ("INSERT INTO kv_usage VALUES ('words', 1, 2)", "the usage of each plugin is the sum of its values"),
            (
                "UPDATE jobs SET parent = 9223372036854775807",
                "the parent of each job is there, or a job at least as new was deleted",
            ),
            ("INSERT INTO payloads VALUES (7, x'00')", "each log, payload, result and report belongs to a job"),
            ("UPDATE jobs SET finished_at = NULL", "each finished job says when it finished"),
            (
                "INSERT INTO operation_waits (operation, kind, name, key) VALUES (7, 0, 'all', '')",
                "what a bulk operation began with is kept only while it is open",
            ),
        ];
        for (statement, rule) in breaks {
            let stage = Stage::new(Kind::Sqlite).await;
            fill(&stage).await;
            let folder = tempfile::tempdir().unwrap();
            let copy = folder.path().join("copy.db");
            copied(&stage.file(), &copy);
            assert_eq!(check_file(&copy).await.unwrap().faults, []);
            Connection::open(&copy).unwrap().execute_batch(statement).unwrap();
            let faults = check_file(&copy).await.unwrap().faults;
            let fault = faults.iter().find(|fault| fault.rule == rule);
            assert!(fault.is_some_and(|fault| fault.count > 0 && !fault.samples.is_empty()), "{statement}: {faults:?}");
        }
    });
}

#[test]
fn a_damaged_file_is_told_from_a_sound_one() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        fill(&stage).await;
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("copy.db");
        copied(&stage.file(), &copy);
        let mut bytes = std::fs::read(&copy).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 3000].fill(0xAB);
        std::fs::write(&copy, bytes).unwrap();
        let found = check_file(&copy).await;
        assert!(found.is_err() || found.is_ok_and(|report| !report.faults.is_empty()));
        let store = folder.path().join("store.db");
        assert!(restore(&store.display().to_string(), &copy).is_err(), "nor is it restored");
        assert!(!store.exists() && !folder.path().join("store.db.wharf-unfinished").exists());
    });
}

#[test]
fn a_copy_that_was_killed_is_in_nobodys_way() {
    block_on(async {
        let stage = Stage::new(Kind::Sqlite).await;
        fill(&stage).await;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // What a killed process leaves, and what one holds that goes on.
        std::fs::write(path("copy.db.wharf-unfinished"), "half").unwrap();
        let report = copied(&stage.file(), &path("copy.db"));
        let other = std::fs::File::create(path("other.db.wharf-unfinished")).unwrap();
        other.lock().unwrap();
        let error = backup(&stage.file().display().to_string(), &path("other.db"), &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("other.db.wharf-unfinished: another process is writing it"), "{error}");
        drop(other);
        copied(&stage.file(), &path("other.db"));

        // An empty store, and half a copy beside it: a restore that was killed.
        std::fs::write(path("back.db"), "").unwrap();
        std::fs::write(path("back.db.wharf-unfinished"), "half").unwrap();
        assert_eq!(restore(&path("back.db").display().to_string(), &path("copy.db")).unwrap(), report.contents);
        assert_eq!(check_file(&path("back.db")).await.unwrap().faults, []);
        // A backup whose name has that end is not written over while it is read.
        let odd = path("odd.db.wharf-unfinished");
        std::fs::copy(path("copy.db"), &odd).unwrap();
        let error = restore(&path("odd.db").display().to_string(), &odd).unwrap_err().to_string();
        assert!(error.contains("it is what is copied"), "{error}");
        assert_eq!(check_file(&odd).await.unwrap().contents, report.contents);
        std::fs::remove_file(odd).unwrap();
        // A link is not followed to a file of somebody else.
        std::fs::write(path("theirs"), "kept").unwrap();
        std::os::unix::fs::symlink(path("theirs"), path("new.db.wharf-unfinished")).unwrap();
        assert!(backup(&stage.file().display().to_string(), &path("new.db"), &mut |_, _| {}).is_err());
        assert_eq!(std::fs::read_to_string(path("theirs")).unwrap(), "kept");
        std::fs::remove_file(path("new.db.wharf-unfinished")).unwrap();
        let left =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(left.into_iter().all(|name| !name.contains("unfinished")), "nothing is left behind");
    });
}

/// Runs a statement in the schema of an address, past the store.
async fn sql(address: &str, statement: &str) {
    let (base, schema) = address.split_once("schema=").unwrap();
    let (client, connection) =
        tokio_postgres::connect(base.trim_end_matches(['?', '&']), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path TO {schema}; {statement}")).await.unwrap();
}

#[test]
fn the_tables_of_a_database_are_checked_while_a_host_goes_on() {
    block_on(async {
        let address = crate::server::shared_address();
        let stage = Stage::at(&address).await;
        fill(&stage).await;
        let report = check(&address).await.unwrap();
        assert_eq!(report.faults, []);
        let kinds = ["waiting jobs", "running jobs", "succeeded jobs", "failed jobs"];
        assert_eq!(kinds.map(|kind| count(&report.contents, kind)), [3, 1, 1, 1]);
        let empty = address.replace("schema=", "schema=no_");
        let error = check(&empty).await.unwrap_err().to_string();
        assert!(error.contains("no host has made tables"), "{error}");
    });
}

#[test]
fn a_check_finds_what_breaks_a_rule_of_a_database() {
    block_on(async {
        let breaks = [
            ("DELETE FROM ready", "each job that is listed as ready is ready, and each ready job is listed once"),
            ("DELETE FROM running", "each lease has a running job, and each running job one lease"),
            ("UPDATE jobs SET node = NULL", "each running job says who runs it"),
            ("DELETE FROM finished", "each finished job says when it finished, and is listed for its deletion"),
            (
                "UPDATE jobs SET parent = 9223372036854775807",
                "the parent of each job is there, or a job at least as new was deleted",
            ),
            ("DELETE FROM jobs WHERE state = 4", "each log and each attempt belongs to a job"),
            ("DELETE FROM lines", "each ready job is of a line of its lane and its task"),
            (
                "INSERT INTO operation_waits (operation, kind, name, key) VALUES (7, 0, 'all', '')",
                "what a bulk operation began with is kept only while it is open",
            ),
            ("DELETE FROM names", "each task and limit group of a job has a name"),
            ("UPDATE waiting_jobs SET jobs = jobs + 1", "the waiting jobs of each task are counted"),
            ("INSERT INTO kv_usage VALUES ('words', 1, 2)", "the usage of each plugin is the sum of its values"),
        ];
        for (statement, rule) in breaks {
            let address = crate::server::shared_address();
            let stage = Stage::at(&address).await;
            fill(&stage).await;
            assert_eq!(check(&address).await.unwrap().faults, [], "{statement}");
            sql(&address, statement).await;
            let faults = check(&address).await.unwrap().faults;
            let fault = faults.iter().find(|fault| fault.rule == rule);
            assert!(fault.is_some_and(|fault| fault.count > 0 && !fault.samples.is_empty()), "{statement}: {faults:?}");
        }
        // Tables without what says which version made them, as a restore of some tables leaves them.
        let address = crate::server::shared_address();
        let _stage = Stage::at(&address).await;
        sql(&address, "DELETE FROM version").await;
        let error = check(&address).await.unwrap_err().to_string();
        assert!(error.contains("its tables have version 0"), "{error}");
        sql(&address, "INSERT INTO version VALUES (99, 99)").await;
        let error = check(&address).await.unwrap_err().to_string();
        assert!(error.contains("written by a newer Wharf"), "{error}");
    });
}
