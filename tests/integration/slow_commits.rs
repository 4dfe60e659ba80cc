//! Commits that hang: the host stays up, says so, stops what it can no longer vouch for, and goes on by itself.

use serde_json::json;

use crate::chaos::read_spans;
use crate::harness::{Postgres, Setup, Standby, eventually};

#[test]
fn a_host_whose_commits_hang_says_so_and_loses_nothing() {
    let postgres = Postgres::start(false);
    let logs = tempfile::tempdir().expect("a temporary folder");
    let settings = format!(
        "[lease]\nlength = \"2s\"\nmargin = \"500ms\"\n[plugins.villain]\n\
         dirs = [{{ host = \"{}\", guest = \"/log\", writable = true }}]",
        logs.path().display()
    );
    let setup = || Setup::default().plugin("villain").settings(&settings).database(&postgres.address());
    let host = setup().start();
    let spans = || read_spans(&logs.path().join("spans"));
    let long = host.enqueue("villain/keyed", json!({ "key": "one", "do": "span", "ms": 10_000, "log": "/log/spans" }));
    eventually("the job runs", || (spans().len() == 1).then_some(()));

    let standby = Standby::awaited(&postgres);
    let why = eventually("it says what is wrong", || {
        let ready = host.client().get("/ready");
        (ready.status == 503).then(|| ready.json()["reasons"][0].as_str().unwrap_or_default().to_owned())
    });
    assert!(why.contains("the store") && (why.contains("response") || why.contains("answer")), "{why}");
    eventually("its sandboxes are stopped", || (host.metric("wharf_attempts_running") == Some(0.0)).then_some(()));

    // What is asked now may be written: nobody is told that it was not.
    let asked =
        json!({ "task": "villain/do", "payload": { "do": "span", "ms": 0, "log": "/log/spans" }, "token": "once" });
    let unheard = host.client().post("/v1/jobs", &asked);
    assert_eq!((unheard.status, unheard.json()["code"].as_str()), (504, Some("outcome-unknown")), "{unheard:?}");
    let detail = unheard.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(detail.contains("token") && !detail.contains("nothing was changed"), "{detail}");

    drop(standby);
    eventually("it is ready again by itself", || host.is_ready().then_some(()));
    let again = host.client().post("/v1/jobs", &asked);
    assert_eq!(again.status, 200, "it was written after all, and is known by its token: {again:?}");
    let once = again.json()["id"].as_str().expect("an id").to_owned();
    for id in [&once, &long] {
        assert_eq!(host.finished(id)["state"], "succeeded");
    }
    let spans = spans();
    assert_eq!(spans[&(long.clone(), 1)].end, None, "the first attempt was stopped before another could begin");
    // One job for both requests. A machine that stalls for longer than its lease may make a second attempt of it.
    assert!(spans.range((once.clone(), 0)..=(once.clone(), u32::MAX)).any(|(_, span)| span.end.is_some()), "{spans:?}");
}
