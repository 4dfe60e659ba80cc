//! A job that kills its hosts is found and failed, and nothing beside it; a host that is killed while it drains counts against nobody.

use std::path::Path;

use serde_json::{Value, json};

use crate::chaos::{Spans, read_spans};
use crate::harness::{Host, Postgres, Setup, eventually, shared_address};

const BRIEF: &str = "[lease]\nlength = \"3s\"\nmargin = \"500ms\"";
/// From so many crashes on a job runs alone, and at so many it is failed.
const SUSPECT: u64 = 3;
const CRASHES_MAX: u64 = 5;

fn logging(logs: &Path) -> Setup {
    let settings =
        format!("[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]", logs.display());
    Setup::default().plugin("villain").settings(&settings)
}

fn span(host: &Host, ms: u64) -> String {
    host.enqueue("villain/slow", json!({ "do": "span", "key": "one", "ms": ms, "log": "/log/spans" }))
}

fn begun(spans: &Spans, job: &str) -> usize {
    spans.keys().filter(|(id, _)| id == job).count()
}

fn crashes(job: &Value) -> (Option<&str>, Option<u64>, Option<u64>) {
    (job["state"].as_str(), job["crashes"].as_u64(), job["failures"].as_u64())
}

/// The host is killed as soon as one of its jobs has begun, as that job would do it.
fn only_the_killer_is_failed(setup: impl Fn(&Path) -> Setup) {
    let logs = tempfile::tempdir().expect("a temporary folder");
    let mut host = setup(logs.path()).start();
    let spans = || read_spans(&logs.path().join("spans"));
    // In between, so that neither the first nor the last of them is meant.
    let before = span(&host, 3000);
    let killer = span(&host, 600_000);
    let innocents = [before, span(&host, 3000), span(&host, 3000)];
    for crash in 1..=CRASHES_MAX {
        let together = crash <= SUSPECT;
        let seen = eventually("the killer runs", || {
            let seen = spans();
            let all = innocents.iter().all(|id| begun(&seen, id) as u64 >= crash);
            (begun(&seen, &killer) as u64 == crash && (all || !together)).then_some(seen)
        });
        if !together {
            let running = host.client().get("/v1/jobs?state=running").ok();
            let ended = |id: &String| seen.iter().filter(|((job, _), _)| job == id).all(|(_, span)| span.end.is_none());
            let unfinished = innocents.iter().filter(|id| ended(id)).count();
            assert!(running["jobs"].as_array().is_some_and(|jobs| jobs.len() <= 1 + unfinished), "{running}");
            for id in &innocents {
                let last = seen.range((id.clone(), 0)..=(id.clone(), u32::MAX)).next_back().expect("it began").1;
                let killers =
                    seen.range((killer.clone(), 0)..=(killer.clone(), u32::MAX)).next_back().expect("it runs").1;
                assert!(last.end.is_some() || begun(&seen, id) as u64 <= SUSPECT, "{id} runs beside it: {last:?}");
                assert!(last.start < killers.start, "{id} was begun beside it");
            }
        }
        host.kill();
        host.start();
    }
    let job = host.finished(&killer);
    assert_eq!(crashes(&job), (Some("failed"), Some(CRASHES_MAX), Some(0)), "{job}");
    assert!(
        job["report"]["text"].as_str().is_some_and(|text| text.contains("no other job was running there")),
        "{job}"
    );
    for id in &innocents {
        let job = host.finished(id);
        assert_eq!(crashes(&job), (Some("succeeded"), Some(SUSPECT), Some(0)), "{job}");
    }
    assert_eq!(host.run("villain/do", json!({ "do": "echo" }))["state"], "succeeded", "and others have their turn");
}

#[test]
fn of_jobs_beside_one_that_kills_its_host_none_is_failed_on_sqlite() {
    only_the_killer_is_failed(logging);
}

#[test]
fn of_jobs_beside_one_that_kills_its_host_none_is_failed_on_postgres() {
    let address = shared_address();
    only_the_killer_is_failed(|logs| logging(logs).settings(BRIEF).database(&address));
}

/// SIGTERM, and before the drain timeout is over SIGKILL, as an orchestrator does it at each redeploy.
fn redeploys_cost_nothing(setup: Setup, is_marked: impl Fn(&Host) -> bool) {
    let mut host = setup.plugin("villain").start();
    let id = host.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    for redeploy in 1..=CRASHES_MAX + 1 {
        let job = host.in_state(&id, "running");
        assert_eq!(crashes(&job), (Some("running"), Some(0), Some(0)), "{job}");
        assert_eq!(job["attempt"].as_u64(), Some(redeploy), "{job}");
        host.signal("-TERM");
        eventually("it drains", || (!host.is_ready()).then_some(()));
        eventually("that is written down", || is_marked(&host).then_some(()));
        host.kill();
        host.start();
        // What the host before held waits for the end of its leases.
        eventually("it runs again", || (host.job(&id)["attempt"].as_u64() > Some(redeploy)).then_some(()));
    }
    host.client().post(&format!("/v1/jobs/{id}/cancel"), &json!({})).ok();
    let job = host.finished(&id);
    assert_eq!(crashes(&job), (Some("cancelled"), Some(0), Some(0)), "{job}");
}

#[test]
fn redeploys_that_are_cut_short_cost_a_job_nothing_on_sqlite() {
    // What is acknowledged later was written later.
    redeploys_cost_nothing(Setup::default(), |host| {
        host.enqueue_with(json!({ "task": "villain/do", "payload": { "do": "echo" }, "delay": "1h" }));
        true
    });
}

#[test]
fn redeploys_that_are_cut_short_cost_a_job_nothing_on_postgres() {
    let postgres = Postgres::start(false);
    let address = postgres.address();
    let schema = address.split_once("schema=").expect("it names one").1.to_owned();
    let drains = || -> u64 {
        let count = postgres.sql(&format!("SELECT count(*) FROM {schema}.node_marks WHERE draining"));
        count.parse().expect("a number")
    };
    let seen = std::cell::Cell::new(0);
    redeploys_cost_nothing(Setup::default().settings(BRIEF).database(&address), |_| {
        let more = drains() > seen.get();
        seen.set(seen.get() + u64::from(more));
        more
    });
}
