//! `wharf store`: a backup of a busy host, its restore, and checks of both stores.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Host, Postgres, Setup, eventually, eventually_within, shared_address, wharf};

/// A command of the CLI on a store, without a host.
fn store(address: &str, args: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    wharf()
        .current_dir(folder.path())
        .args(["store", "--json", "--set", &format!("store={address}")])
        .args(args)
        .output()
        .expect("the CLI runs")
}

#[track_caller]
fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const KV: &str = "[plugins.changes]\nkv = true";

/// Stops a thread at the end of a test, whichever it is.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn all_jobs(host: &Host) -> Vec<Value> {
    let (mut jobs, mut path) = (Vec::new(), "/v1/jobs?limit=1000".to_owned());
    loop {
        let page = host.client().get(&path).ok();
        jobs.extend(page["jobs"].as_array().expect("a page").clone());
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/jobs{next}"),
            None => return jobs,
        }
    }
}

/// Enqueues batches of ten, each a transaction, until it is told to stop: a copy of the store has whole ones.
fn keep_busy(host: &Host, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let job = |n| json!({ "task": "words/count", "payload": { "text": "a b" }, "token": format!("{number}-{n}") });
        host.client().post("/v1/jobs", &json!((0..10).map(job).collect::<Vec<_>>())).ok();
    }
}

fn until_many_have_ended(host: &Host) {
    eventually("jobs have ended", || {
        let jobs = host.client().get("/v1/jobs?state=succeeded&limit=300").ok();
        (jobs["jobs"].as_array()?.len() == 300).then_some(())
    });
}

#[test]
fn a_backup_of_a_busy_host_is_one_moment_of_it_and_runs_on_as_a_store() {
    let host = Setup::default().plugin("words").start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, copy) = (host.dir().join("wharf.db"), folder.path().join("copy.db"));
    let store_address = format!("sqlite:{}", file.display());
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| keep_busy(&host, &stop));
        until_many_have_ended(&host);
        let report = store(&store_address, &["backup", text(&copy)]);
        done(&report)
    });
    assert!(report["contents"]["succeeded_jobs"].as_u64().is_some_and(|jobs| jobs >= 300), "{report}");
    assert_eq!(done(&store(&store_address, &["check"]))["faults"], json!([]), "the busy store itself");
    assert_eq!(done(&store(&store_address, &["check", text(&copy)]))["contents"], report["contents"]);

    // The store that the host uses takes no restore.
    let refused = store(&store_address, &["restore", text(&copy)]);
    assert_eq!(refused.status.code(), Some(5), "{}", String::from_utf8_lossy(&refused.stderr));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another host uses it"));

    let restored = folder.path().join("wharf.db");
    let address = format!("sqlite:{}", restored.display());
    assert_eq!(done(&store(&address, &["restore", text(&copy)]))["contents"], report["contents"]);
    let heir = Setup::default().plugin("words").store_in(folder.path()).start();
    let jobs = eventually("all jobs of the backup end", || {
        let jobs = all_jobs(&heir);
        jobs.iter().all(|job| job["state"] == "succeeded").then_some(jobs)
    });
    assert_eq!(jobs.len() % 10, 0, "whole transactions");
    for job in &jobs {
        let id = job["id"].as_str().expect("an ID");
        assert_eq!(host.finished(id)["token"], job["token"], "{job}");
    }
    assert_eq!(
        heir.result(jobs[0]["id"].as_str().expect("an ID")),
        host.result(jobs[0]["id"].as_str().expect("an ID"))
    );
}

#[test]
fn a_store_in_postgresql_is_checked_and_pg_dump_is_named_for_its_backup() {
    let address = shared_address();
    let host = Setup::default().plugin("words").database(&address).start();
    host.run("words/count", json!({ "text": "a" }));
    let report = done(&store(&address, &["check"]));
    assert_eq!((&report["faults"], &report["contents"]["succeeded_jobs"]), (&json!([]), &json!(1)), "{report}");
    let refused = store(&address, &["backup", "a.dump"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && told.contains("pg_dump --format=custom --schema="), "{told}");
}

/// The line of a message that is a command, run by a shell.
#[track_caller]
fn run_as_told(output: &Output, program: &str) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = told.lines().map(str::trim).find(|line| line.starts_with(program));
    let line = line.unwrap_or_else(|| panic!("no {program} in {told}"));
    let ran = std::process::Command::new("sh").args(["-c", line]).output().expect("sh runs");
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn a_busy_database_is_restored_from_the_dump_that_the_command_names() {
    let server = Postgres::start(false);
    let address = server.address();
    let setup =
        |address: &str| Setup::default().plugin("words").plugin("changes").settings(KV).database(address).start();
    let host = setup(&address);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dump = folder.path().join("wharf.dump");
    let kept = host.run("changes/check", json!({ "page": "a", "text": "to be" }));
    assert_eq!(kept["state"], "succeeded", "{kept}");
    let first = host.enqueue("words/count", json!({ "text": "a" }));
    let stop = AtomicBool::new(false);
    let before = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| keep_busy(&host, &stop));
        until_many_have_ended(&host);
        let before: Vec<Value> = all_jobs(&host).into_iter().filter(|job| job["state"] == "succeeded").collect();
        run_as_told(&store(&address, &["backup", text(&dump)]), "pg_dump ");
        before
    });
    assert_eq!(done(&store(&address, &["check"]))["faults"], json!([]), "the database itself");

    server.sql("CREATE DATABASE restored");
    let restored = address.replacen("/postgres?", "/restored?", 1);
    let empty = store(&restored, &["check"]);
    assert!(String::from_utf8_lossy(&empty.stderr).contains("no host has made tables"), "{empty:?}");
    run_as_told(&store(&restored, &["restore", text(&dump)]), "pg_restore ");
    let report = done(&store(&restored, &["check"]));
    assert_eq!(report["faults"], json!([]), "{report}");
    let ended = report["contents"]["succeeded_jobs"].as_u64().expect("a number");
    assert!(ended >= before.len() as u64, "{report}");
    assert_eq!(report["contents"]["stored_values"], json!(1), "{report}");

    // Whole transactions, and each job as it was; jobs that ran then run again.
    let heir = setup(&restored);
    let jobs = eventually_within(Duration::from_secs(180), "all jobs of the dump end", || {
        let jobs = all_jobs(&heir);
        jobs.iter().all(|job| job["state"] == "succeeded").then_some(jobs)
    });
    assert_eq!(jobs.iter().filter(|job| job["token"].is_string()).count() % 10, 0);
    for job in &before {
        let id = job["id"].as_str().expect("an ID");
        let same = jobs.iter().find(|other| other["id"] == *id).unwrap_or_else(|| panic!("{job} is not there"));
        assert_eq!(same, job);
    }
    for id in [first.as_str(), before[0]["id"].as_str().expect("an ID")] {
        assert_eq!(heir.result(id), host.result(id));
    }
    let again = heir.run("changes/check", json!({ "page": "a", "text": "to be" }));
    let told = heir.result(again["id"].as_str().expect("an ID"));
    assert_eq!(told, json!({ "change": "none", "checks": 2, "changes": 0 }), "what the plugin kept is there");
    assert_eq!(done(&store(&restored, &["check"]))["faults"], json!([]), "the heir's own work");
}

#[test]
fn finished_jobs_are_deleted_by_how_they_ended_and_by_task_while_the_host_runs() {
    let settings = "[upkeep]\ninterval = \"200ms\"\nkeep-succeeded = \"1h\"\n\
                    [plugins.words.tasks.count]\nkeep-succeeded = \"1ms\"\n\
                    [plugins.villain.tasks.do]\nretry = { attempts = 1 }\n";
    let host = Setup::default().plugin("words").plugin("villain").settings(settings).start();
    let kept = host.run("villain/do", json!({ "do": "trap" }));
    let short = host.enqueue("words/count", json!({ "text": "a" }));
    eventually("it is deleted", || (host.client().get(&format!("/v1/jobs/{short}")).status == 404).then_some(()));
    assert_eq!(host.job(kept["id"].as_str().expect("an ID"))["state"], "failed");

    // A shorter time takes effect at once.
    let changed = std::fs::read_to_string(host.dir().join("wharf.toml")).expect("settings");
    let changed = changed.replace("keep-succeeded = \"1h\"", "keep-failed = \"1ms\"");
    std::fs::write(host.dir().join("wharf.toml"), changed).expect("settings can be written");
    host.signal("-HUP");
    let failed = format!("/v1/jobs/{}", kept["id"].as_str().expect("an ID"));
    eventually("the failed one is deleted, too", || (host.client().get(&failed).status == 404).then_some(()));
}
