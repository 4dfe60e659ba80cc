//! Several hosts on one PostgreSQL: they know each other, limits hold across them, and faults mend by themselves.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::{self, Fault, Scale, Where, read_spans};
use crate::harness::{Postgres, Proxy, Setup, eventually, shared_address};

/// Short, so that what follows the end of a lease follows soon.
const BRIEF: &str = "[lease]\nlength = \"2s\"\nmargin = \"500ms\"";

#[test]
fn nodes_see_each_other_and_each_other_s_jobs() {
    let address = shared_address();
    let grace = "[attempts]\ncancel-grace = \"200ms\"";
    let mut first = Setup::default().plugin("villain").settings(grace).database(&address).start();
    let second = Setup::default().plugin("words").database(&address).start();
    let both = eventually("each knows both", || {
        let nodes = second.client().get("/v1/nodes").ok();
        let ready = |node: &serde_json::Value| node["plugins"].as_array().is_some_and(|plugins| plugins.len() == 1);
        let all = nodes.as_array().expect("a list");
        (all.len() == 2 && all.iter().all(ready)).then(|| all.clone())
    });
    assert_eq!(both.iter().filter(|node| node["here"] == true).count(), 1);
    assert!(both.iter().all(|node| node["plugins"][0]["digest"].as_str().is_some_and(|digest| digest.len() == 64)));
    let list = second.cli(&["node", "list"]).output().expect("the CLI runs");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("villain 0.1.0") && list.contains("here"), "{list}");

    // Only the first has the plugin; the second follows, waits and cancels all the same.
    let chunks = first.enqueue("villain/slow", json!({ "do": "emit", "chunks": 5, "pause-ms": 100 }));
    let events: Vec<_> = second.client().events(&chunks, None).collect();
    assert_eq!(events.iter().filter(|event| event.kind == "chunk").count(), 5, "{events:?}");
    let endless = first.enqueue("villain/slow", json!({ "do": "sleep", "ms": 600_000 }));
    second.in_state(&endless, "running");
    let asked = Instant::now();
    second.client().post(&format!("/v1/jobs/{endless}/cancel"), &json!({}));
    assert_eq!(second.finished(&endless)["state"], "cancelled");
    // The next renewal of its lease would tell of it after ten seconds.
    assert!(asked.elapsed() < Duration::from_secs(5), "it was told by a nudge: {:?}", asked.elapsed());

    assert_eq!(first.terminate(), Some(0));
    eventually("who left is off the list", || {
        (second.client().get("/v1/nodes").ok().as_array().map(Vec::len) == Some(1)).then_some(())
    });
}

#[test]
fn a_host_that_was_stopped_longer_than_its_lease_does_nothing_more() {
    let address = shared_address();
    let logs = tempfile::tempdir().expect("a temporary folder");
    let settings = format!(
        "{BRIEF}\n[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.path().display()
    );
    let setup = || Setup::default().plugin("villain").settings(&settings).database(&address);
    let zombie = setup().start();
    let payload = json!({ "key": "one", "do": "span", "ms": 3000, "log": "/log/spans" });
    let jobs: Vec<String> = (0..2).map(|_| zombie.enqueue("villain/keyed", payload.clone())).collect();
    let spans = || read_spans(&logs.path().join("spans"));
    eventually("the first job runs", || (spans().len() == 1).then_some(()));
    zombie.signal("-STOP");

    let heir = setup().start();
    eventually("the heir runs it", || spans().contains_key(&(jobs[0].clone(), 2)).then_some(()));
    zombie.signal("-CONT");
    for id in &jobs {
        assert_eq!(heir.finished(id)["state"], "succeeded");
    }
    let spans = spans();
    assert_eq!(spans[&(jobs[0].clone(), 1)].end, None, "when it woke, it did nothing more");
    let mut ran: Vec<_> = spans.values().filter_map(|span| Some((span.start, span.end?))).collect();
    ran.sort_unstable();
    assert_eq!(ran.len(), 2, "{spans:?}");
    assert!(ran[0].1 <= ran[1].0, "a limit of one holds: {spans:?}");
    let job = heir.job(&jobs[0]);
    assert_eq!((job["attempt"].as_u64(), job["crashes"].as_u64()), (Some(2), Some(1)), "{job}");
    // What it had to say of the end came too late, and was refused.
    eventually("its late end is refused", || {
        zombie.said().contains("the result of an attempt was refused").then_some(())
    });
    // It knows by itself that it is behind, and goes on.
    eventually("it is ready again", || zombie.is_ready().then_some(()));
    assert_eq!(zombie.run("villain/do", json!({ "do": "span", "ms": 1 }))["state"], "succeeded");
}

#[test]
fn without_its_database_a_host_stops_what_it_runs_and_says_so() {
    let mut postgres = Postgres::start(false);
    let logs = tempfile::tempdir().expect("a temporary folder");
    let settings = format!(
        "{BRIEF}\n[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.path().display()
    );
    let host = Setup::default().plugin("villain").settings(&settings).database(&postgres.address()).start();
    let payload = json!({ "key": "one", "do": "span", "ms": 6000, "log": "/log/spans" });
    let id = host.enqueue("villain/keyed", payload);
    let spans = || read_spans(&logs.path().join("spans"));
    eventually("the job runs", || (spans().len() == 1).then_some(()));
    let pid = host.pid();
    postgres.tell("stop");
    let why = eventually("it says what is wrong", || {
        let ready = host.client().get("/ready");
        (ready.status == 503).then(|| ready.json()["reasons"][0].as_str().unwrap_or_default().to_owned())
    });
    assert!(why.contains("the store failed") && why.contains("wharf"), "{why}");
    eventually("its sandboxes are stopped", || (host.metric("wharf_attempts_running") == Some(0.0)).then_some(()));
    let refused = host.client().post("/v1/jobs", &json!({ "task": "villain/do", "payload": { "do": "span" } }));
    assert_eq!(refused.status, 503, "nothing is acknowledged: {refused:?}");
    postgres.tell("start");
    eventually("it is ready again by itself", || host.is_ready().then_some(()));
    let job = host.finished(&id);
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(spans()[&(id.clone(), 1)].end, None, "the first attempt was stopped before another could begin");
    assert_eq!(host.pid(), pid);
}

#[test]
fn a_host_that_is_cut_off_stops_what_it_runs_and_comes_back() {
    let postgres = Postgres::start(false);
    let address = postgres.address();
    let way = Proxy::before(postgres.dir(), &address);
    let logs = tempfile::tempdir().expect("a temporary folder");
    let settings = format!(
        "{BRIEF}\n[plugins.villain]\ndirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.path().display()
    );
    let setup = || Setup::default().plugin("villain").settings(&settings);
    let far = setup().database(way.address()).start();
    let payload = json!({ "key": "one", "do": "span", "ms": 20_000, "log": "/log/spans" });
    let id = far.enqueue("villain/keyed", payload);
    let spans = || read_spans(&logs.path().join("spans"));
    eventually("the job runs", || (spans().len() == 1).then_some(()));
    // Connections stand, and nothing comes back on them.
    way.hold(true);
    let near = setup().database(&address).start();
    let why = eventually("the one that is cut off says so", || {
        let ready = far.client().get("/ready");
        (ready.status == 503).then(|| ready.json()["reasons"][0].as_str().unwrap_or_default().to_owned())
    });
    // Whichever is noticed first: an answer that does not come, or that all connections wait for one.
    assert!(why.contains("no response") || why.contains("connections was free"), "{why}");
    eventually("the other runs its job", || spans().contains_key(&(id.clone(), 2)).then_some(()));
    assert_eq!(near.finished(&id)["state"], "succeeded");
    way.hold(false);
    eventually("it is ready again by itself", || far.is_ready().then_some(()));
    let spans = spans();
    assert_eq!(
        (spans.len(), spans[&(id.clone(), 1)].end),
        (2, None),
        "it was stopped, and did nothing more: {spans:?}"
    );
    assert_eq!(far.run("villain/do", json!({ "do": "span", "ms": 1 }))["state"], "succeeded");
}

#[test]
fn nothing_is_lost_whatever_breaks() {
    let scale = Scale { before: 60, repeats: 3, lease: Duration::from_secs(2) };
    chaos::print_head(&scale);
    for fault in Fault::ALL {
        let row = chaos::run(Where::Cluster, fault, &scale);
        row.print();
        assert_eq!((row.lost, row.twice, row.over), (0, 0, 0), "{row:?}");
    }
    for fault in Fault::OF_A_FILE {
        let row = chaos::run(Where::File, fault, &scale);
        row.print();
        assert_eq!((row.lost, row.twice, row.over), (0, 0, 0), "{row:?}");
    }
}
