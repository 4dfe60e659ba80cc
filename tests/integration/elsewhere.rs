//! What a host answers about plugins that only another host of the store has.

use serde_json::{Value, json};

use crate::harness::{Host, Postgres, Setup, eventually, shared_address};

/// Waits until a host has heard of what others have: it takes a job for it.
#[track_caller]
fn enqueued(host: &Host, job: &Value) -> String {
    eventually("what the other host has is known", || {
        let reply = host.client().post("/v1/jobs", job);
        (reply.status == 202).then(|| reply.json()["id"].as_str().expect("an id").to_owned())
    })
}

fn durable(host: &Host, topic: &str) -> Value {
    let body = json!({ "payload": { "path": "a.md", "text": "# Hi" }, "durable": true });
    // The other host may have said that it loads a subscriber, and not yet that it has it.
    eventually("no subscriber is still loading", || {
        let reply = host.client().post(&format!("/v1/broadcasts/{topic}"), &body);
        (reply.status != 503).then(|| reply.ok())
    })
}

fn plugins(batch: &Value) -> Vec<&str> {
    batch["jobs"].as_array().expect("a list").iter().filter_map(|job| job["plugin"].as_str()).collect()
}

#[test]
fn a_job_is_taken_by_a_host_that_does_not_have_its_plugin_as_by_one_that_has() {
    let address = shared_address();
    let near = Setup::default().plugin("villain").database(&address).start();
    let settings = "[plugins.words.tasks.count]\nlimit = { group = \"counters\", per-key = 3 }";
    let mut far = Setup::default().plugin("words").settings(settings).database(&address).start();
    let job = json!({ "task": "words/count", "payload": { "tenant": "acme", "text": "a b" } });
    let id = enqueued(&near, &job);
    let done = near.finished(&id);
    let lane = (done["state"].as_str(), done["group"].as_str(), done["key"].as_str());
    assert_eq!(lane, (Some("succeeded"), Some("counters"), Some("acme")), "as its own host would take it: {done}");

    // Its payload is checked, a task that nobody has is told, and an array is taken whole or not at all.
    let refused = |job: &Value, says: &str| {
        let reply = near.client().post("/v1/jobs", job);
        assert_eq!(reply.status, 422, "{reply:?}");
        assert!(reply.json()["detail"].to_string().contains(says), "{reply:?}");
    };
    refused(&json!({ "task": "words/count", "payload": { "text": 7 } }), "payload");
    refused(&json!({ "task": "words/cuont", "payload": {} }), "words/cuont");
    refused(&json!({ "task": "words/receive", "payload": {} }), "durable broadcast");
    let count = || near.client().get("/v1/jobs?limit=1000").ok()["jobs"].as_array().map(Vec::len);
    let before = count();
    refused(&json!([job, { "task": "words/count", "payload": {} }]), "job 1");
    assert_eq!(count(), before);
    let both =
        near.client().post("/v1/jobs", &json!([job, { "task": "villain/do", "payload": { "do": "echo" } }])).ok();
    for taken in both.as_array().expect("a list") {
        assert_eq!(near.finished(taken["id"].as_str().expect("an id"))["state"], "succeeded");
    }

    // A guest's jobs are taken alike, and a limit is set from any host.
    let child = json!([{ "task": "words/count", "payload": { "tenant": "acme", "text": "c" } }]);
    let parent = near.run("villain/do", json!({ "do": "enqueue", "children": child }));
    assert_eq!(parent["state"], "succeeded", "{parent}");
    let child = near.result(parent["id"].as_str().expect("an id"))[0].as_str().expect("an id").to_owned();
    assert_eq!(near.finished(&child)["key"], "acme");
    near.client().put("/v1/limits?group=counters", &json!({ "total": 0 })).ok();
    let paused = enqueued(&near, &job);
    assert_eq!(near.job(&paused)["wait"]["reason"], "paused", "not for want of a plugin");
    assert_eq!(near.client().delete("/v1/limits?group=counters").status, 204);
    near.finished(&paused);

    // When it has left, what it had is not there any more.
    assert_eq!(far.terminate(), Some(0));
    eventually("nobody has it", || (near.client().post("/v1/jobs", &job).status == 422).then_some(()));
}

#[test]
fn a_durable_broadcast_makes_one_job_for_each_subscriber_wherever_it_is_loaded() {
    let address = shared_address();
    // Both have `summary`: it has one job all the same.
    let near = Setup::default().plugin("summary").plugin("word-index").database(&address).start();
    let settings = "[plugins.link-check.receive]\nlimit = { group = \"checkers\", total = 1 }";
    let mut far = Setup::default().plugin("summary").plugin("link-check").settings(settings).database(&address).start();
    for host in [&near, &far] {
        let batch = eventually("the other host is known to this one", || {
            let batch = durable(host, "document.saved");
            (plugins(&batch).len() == 3).then_some(batch)
        });
        assert_eq!(plugins(&batch), ["link-check", "summary", "word-index"]);
        let url = format!("/v1/broadcasts/{}", batch["id"].as_str().expect("an id"));
        let over = eventually("all are over", || {
            let batch = host.client().get(&url).ok();
            (batch["finished"] == true).then_some(batch)
        });
        assert_eq!((plugins(&over).len(), &over["states"]), (3, &json!({ "succeeded": 3 })), "{over}");
        let job = host.job(over["jobs"][0]["id"].as_str().expect("an id"));
        assert_eq!(job["group"], "checkers", "as its own host says: {job}");
    }
    // One that died counts for nothing after a while.
    far.kill();
    eventually("the dead one's are not waited for", || {
        (plugins(&durable(&near, "document.saved")) == ["summary", "word-index"]).then_some(())
    });
}

#[test]
fn tasks_that_a_host_does_not_announce_are_refused_with_its_name() {
    let postgres = Postgres::start(false);
    let address = postgres.address();
    let schema = address.split_once("schema=").expect("it names one").1.to_owned();
    let host = Setup::default().plugin("villain").database(&address).start();
    // A host that announces no tasks and stays registered.
    let announced = || {
        postgres.sql(&format!(
            "INSERT INTO {schema}.nodes (id, name, version, started_at, seen_at, capacity, running, draining, stopping, plugins,
                 plugin_versions, digests, topics, tasks, loading)
             SELECT 7, 'old:7070', '0.1.0', now, now, 8, 0, false, false, '{{elder}}', '{{1}}', '{{ab}}', '{{villain.>}}', '{{\"\"}}', '{{}}'
             FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS moment
             ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at"
        ))
    };
    let job = json!({ "task": "elder/do", "payload": {} });
    let refused = eventually("it is heard of", || {
        announced();
        let reply = host.client().post("/v1/jobs", &job);
        (reply.status == 503).then_some(reply)
    });
    assert_eq!(
        (refused.json()["code"].as_str(), refused.retry_after.as_deref()),
        (Some("plugin-elsewhere"), Some("1"))
    );
    assert!(refused.json()["detail"].to_string().contains("old:7070"), "{refused:?}");
    announced();
    let body = json!({ "payload": { "do": "echo" }, "durable": true });
    let refused = host.client().post("/v1/broadcasts/villain.x", &body);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("plugin-elsewhere")), "{refused:?}");
    assert_eq!(refused.json()["plugins"], json!([{ "plugin": "elder", "nodes": ["old:7070"] }]), "{refused:?}");
    // A host that fell silent holds up nothing.
    let batch = eventually("it is gone", || {
        let reply = host.client().post("/v1/broadcasts/villain.x", &body);
        (reply.status == 202).then(|| reply.json())
    });
    assert_eq!(plugins(&batch), ["villain"]);
    assert_eq!(host.client().post("/v1/jobs", &job).status, 422);
}

#[test]
fn a_host_that_compiles_goes_by_what_another_has_loaded() {
    let address = shared_address();
    let _far = Setup::default().plugin("villain").database(&address).start();
    let mut near = Setup::default().plugin("summary").database(&address).start();
    near.kill();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = crate::loading::not_compiled_before(folder.path(), "villain");
    std::fs::copy(file, near.plugin_file("villain")).expect("copied");
    near.start();
    let held = crate::loading::Held::of(&near);
    let id = enqueued(&near, &json!({ "task": "villain/do", "payload": { "do": "echo" } }));
    assert_eq!(near.finished(&id)["state"], "succeeded");
    let body = json!({ "payload": { "do": "echo" }, "durable": true });
    assert_eq!(plugins(&near.client().post("/v1/broadcasts/villain.x", &body).ok()), ["villain"]);
    let live = near.client().post("/v1/broadcasts/villain.x", &json!({ "payload": { "do": "echo" } })).ok();
    assert_eq!((&live["loading"], &live["outcomes"]), (&Value::Null, &json!({ "replied": 1 })), "{live}");
    held.go_on(&near);
}

#[test]
fn what_another_host_compiles_is_awaited_by_all() {
    let address = shared_address();
    let near = Setup::default().plugin("villain").database(&address).start();
    let mut far = Setup::default().plugin("summary").database(&address).start();
    assert_eq!(far.terminate(), Some(0));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = crate::loading::not_compiled_before(folder.path(), "villain");
    std::fs::copy(file, far.plugin_file("slow")).expect("copied");
    far.start();
    let held = crate::loading::Held::of(&far);
    let job = json!({ "task": "slow/do", "payload": { "do": "echo" } });
    let refused = eventually("it is heard of", || {
        let reply = near.client().post("/v1/jobs", &job);
        (reply.status == 503).then_some(reply)
    });
    assert_eq!(refused.json()["code"], "plugin-loading", "{refused:?}");
    let body = json!({ "payload": { "do": "echo" }, "durable": true });
    let refused = near.client().post("/v1/broadcasts/villain.x", &body);
    assert_eq!((refused.status, &refused.json()["plugins"]), (503, &json!(["slow"])), "{refused:?}");
    let live = near.client().post("/v1/broadcasts/villain.x", &json!({ "payload": { "do": "echo" } })).ok();
    assert_eq!((&live["loading"], &live["outcomes"]), (&json!(["slow"]), &json!({ "replied": 1 })), "{live}");
    held.go_on(&far);
    near.finished(&enqueued(&near, &job));
    assert_eq!(plugins(&near.client().post("/v1/broadcasts/villain.x", &body).ok()), ["slow", "villain"]);
}
