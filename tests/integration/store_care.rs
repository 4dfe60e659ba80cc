//! `wharf store`: a backup of a busy host, its restore, and checks of both stores.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Host, Setup, eventually, shared_address, wharf};

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

#[test]
fn a_backup_of_a_busy_host_is_one_moment_of_it_and_runs_on_as_a_store() {
    let host = Setup::default().plugin("words").start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (file, copy) = (host.dir().join("wharf.db"), folder.path().join("copy.db"));
    let store_address = format!("sqlite:{}", file.display());
    // Batches of ten, each a transaction: a backup has whole ones.
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        scope.spawn(|| {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let job = |n| json!({ "task": "words/count", "payload": { "text": "a b" }, "token": format!("{number}-{n}") });
                host.client().post("/v1/jobs", &json!((0..10).map(job).collect::<Vec<_>>())).ok();
            }
        });
        eventually("jobs have ended", || {
            (host.client().get("/v1/jobs?state=succeeded&limit=300").ok()["jobs"].as_array()?.len() == 300)
                .then_some(())
        });
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
