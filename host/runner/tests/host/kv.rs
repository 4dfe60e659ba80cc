//! The values of a plugin, in a whole host: written with success or not at all, within the quota, without delaying others.

use std::sync::Arc;

use serde_json::{Value, json};
use wharf_core::author::Author;
use wharf_core::bounds;
use wharf_core::ids::{JobId, PluginId};
use wharf_core::job::StateName;
use wharf_core::kv::{KvKey, KvUsage};
use wharf_core::rollcall::{Answer, Mode};
use wharf_runner::{Broadcast, Enqueued, Request};
use wharf_store::Store;

use crate::setup::{LONG, Running, Setup, memory};

const GRANT: &str = "kv = true";

fn steps(task: &str, steps: Value) -> Request {
    let payload = json!({ "steps": steps, "key": "one" }).to_string().into_bytes();
    Request { task: format!("villain-kv/{task}"), payload, ..Request::default() }
}

fn added(enqueued: &Enqueued) -> JobId {
    let Enqueued::Added(id) = enqueued else { panic!("{enqueued:?}") };
    *id
}

fn villain() -> PluginId {
    "villain-kv".parse().unwrap()
}

async fn value(store: &Arc<dyn Store>, key: &str) -> Option<String> {
    let key: KvKey = key.parse().unwrap();
    let found = store.value(villain(), key).await.unwrap();
    found.map(|bytes| String::from_utf8(bytes).unwrap())
}

fn granted() -> Setup {
    Setup::new().with(&["villain-kv"]).granting("villain-kv", GRANT)
}

async fn start(grant: &str, store: &Arc<dyn Store>) -> Running {
    Setup::new().with(&["villain-kv"]).granting("villain-kv", grant).start(Arc::clone(store)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_an_attempt_commit_with_its_success_or_not_at_all() {
    let setup = granted();
    for store in [memory(), setup.sqlite()] {
        let running = setup.start(Arc::clone(&store)).await;
        let kept = running.result(steps("do", json!([{ "set": ["a", "1"] }, { "enqueue": "villain-kv/do" }]))).await;
        assert_eq!((kept[0].clone(), value(&store, "a").await.as_deref()), (Value::Null, Some("1")));
        for end in [json!({ "fail": "retry" }), json!({ "fail": "discard" }), json!("trap")] {
            let tried = json!([{ "get": "a" }, { "set": ["a", "2"] }, { "set": ["b", "2"] }, { "get": "b" }, end]);
            let id = running.enqueue(steps("do", tried)).await;
            assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Failed);
            assert_eq!((value(&store, "a").await.as_deref(), value(&store, "b").await), (Some("1"), None), "{end}");
        }
        // The next one reads the committed values, with its own changes on top.
        let read = json!([{ "get": "a" }, { "remove": "a" }, { "get": "a" }, { "set": ["c", "3"] },
            { "keys": { "prefix": "", "after": null, "most": 9 } }]);
        assert_eq!(running.result(steps("do", read)).await, json!(["1", null, null, null, ["c"]]));
        assert_eq!(running.host.kv_usage(&villain()).await.unwrap(), KvUsage { values: 1, bytes: 2 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_attempt_leaves_nothing() {
    let store = memory();
    let running = start(GRANT, &store).await;
    let id = running.enqueue(steps("do", json!([{ "set": ["a", "1"] }, "loop"]))).await;
    running.until_running(id).await;
    running.host.cancel(id, Author::anyone()).await.unwrap();
    assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Cancelled);
    assert_eq!(value(&store, "a").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_a_limit_of_one_no_change_is_lost() {
    let setup = granted();
    let store = setup.sqlite();
    let running = setup.start(Arc::clone(&store)).await;
    let add = || steps("row", json!([{ "add": "total" }]));
    let requests = (0..100).map(|_| add()).collect();
    let ids: Vec<_> = running.host.enqueue(requests).await.unwrap();
    for enqueued in ids {
        assert_eq!(running.finished(added(&enqueued)).await.job.status.state.name(), StateName::Succeeded);
    }
    assert_eq!(value(&store, "total").await.as_deref(), Some("100"));
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_its_quota_a_plugin_gets_an_error_and_others_go_on() {
    let store = memory();
    let setup = Setup::new().with(&["villain-kv", "words"]).granting("villain-kv", "kv = \"100KiB\"");
    let running = setup.start(Arc::clone(&store)).await;
    let fill = |key: &str, bytes: u64| json!({ "fill": { "key": key, "bytes": bytes } });
    assert_eq!(running.result(steps("do", json!([fill("a", 60_000)]))).await, json!([null]));
    // Committed values count, and so do those that this attempt wrote before.
    let results = running
        .result(steps("do", json!([fill("b", 60_000), fill("b", 30_000), fill("c", 30_000), { "get": "c" }])))
        .await;
    let error = results[0]["error"].as_str().unwrap();
    assert!(
        error.contains("`villain-kv` stores 60001 bytes and would store 120002; the limit is 102400: remove some, or grant more in wharf.toml with kv = \"SIZE\" under [plugins.villain-kv]"),
        "{error}"
    );
    assert_eq!((results[1].clone(), results[3].clone()), (Value::Null, Value::Null), "{results}");
    assert!(results[2]["error"].as_str().unwrap().contains("stores 90002 bytes"), "{results}");
    assert_eq!(running.host.kv_usage(&villain()).await.unwrap(), KvUsage { values: 2, bytes: 90_002 });
    // A change that reduces the usage is accepted, and frees bytes.
    let shrunk = running.result(steps("do", json!([fill("a", 10), fill("c", 60_000)]))).await;
    assert_eq!(shrunk, json!([null, null]));
    let words = Request { task: "words/count".into(), payload: br#"{"text": "a b"}"#.to_vec(), ..Request::default() };
    assert_eq!(running.result(words).await["words"], 2);
}

/// Usage can exceed the quota after the quota was lowered, or by attempts side by side. It can then be reduced.
#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_beyond_its_quota_can_remove_values() {
    let store = memory();
    let first = start(GRANT, &store).await;
    first.result(steps("do", json!([{ "many": { "prefix": "k", "count": 10, "bytes": 1000 } }]))).await;
    drop(first);
    let running = start("kv = \"5KiB\"", &store).await;
    let results = running
        .result(steps(
            "do",
            json!([{ "set": ["new", ""] }, { "fill": { "key": "k0", "bytes": 999 } }, { "remove": "k1" }]),
        ))
        .await;
    assert!(results[0]["error"].as_str().unwrap().contains("the limit is 5120"), "{results}");
    assert_eq!((results[1].clone(), results[2].clone()), (Value::Null, Value::Null), "{results}");
    assert_eq!(running.host.kv_usage(&villain()).await.unwrap(), KvUsage { values: 9, bytes: 10_020 - 1 - 1002 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_keys_is_bounded_and_the_next_one_follows() {
    let setup = granted();
    let store = setup.sqlite();
    let running = setup.start(Arc::clone(&store)).await;
    for (prefix, count) in [("a", 1000), ("b", 200)] {
        running.result(steps("do", json!([{ "many": { "prefix": prefix, "count": count, "bytes": 1 } }]))).await;
    }
    let page = |after: Value| json!({ "keys": { "prefix": "", "after": after, "most": 4_000_000 } });
    let results =
        running.result(steps("do", json!([page(Value::Null), { "remove": "a0" }, page(json!("a999"))]))).await;
    let keys = |place: usize| results[place].as_array().unwrap().len();
    assert_eq!((keys(0), results[0][0].as_str(), keys(2), results[2][0].as_str()), (1000, Some("a0"), 200, Some("b0")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_reader_delays_nobody() {
    let setup = granted().with(&["words"]);
    let store = setup.sqlite();
    let running = setup.start(Arc::clone(&store)).await;
    running.result(steps("do", json!([{ "fill": { "key": "a", "bytes": bounds::KV_VALUE_BYTES_MAX } }]))).await;
    let asking: Vec<_> = (0..16).map(|_| steps("do", json!([{ "ask": { "key": "a", "times": 4_000_000 } }]))).collect();
    let asking = running.host.enqueue(asking).await.unwrap();
    let ids: Vec<_> = asking.iter().map(added).collect();
    running.until_running(ids[15]).await;
    for _ in 0..20 {
        let words =
            Request { task: "words/count".into(), payload: br#"{"text": "a b"}"#.to_vec(), ..Request::default() };
        assert_eq!(running.result(words).await["words"], 2);
        assert!(running.host.job(ids[0]).await.unwrap().is_some(), "clients get their responses, too");
    }
    for id in ids {
        running.host.cancel(id, Author::anyone()).await.unwrap();
        assert_eq!(running.finished(id).await.job.status.state.name(), StateName::Cancelled);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_subscriber_are_committed_before_its_reply() {
    let setup = granted();
    let store = setup.sqlite();
    let running = setup.start(Arc::clone(&store)).await;
    let broadcast = async |steps: Value| {
        let payload = json!({ "steps": steps }).to_string().into_bytes().into();
        let asked = Broadcast { topic: "kv.do".into(), payload, timeout: LONG, mode: Mode::All };
        running.host.broadcast(asked).unwrap().all().await.remove(0).answer
    };
    let replied = broadcast(json!([{ "add": "n" }, { "enqueue": "villain-kv/do" }])).await;
    assert!(matches!(replied, Answer::Replied(_)), "{replied:?}");
    assert_eq!(value(&store, "n").await.as_deref(), Some("1"));
    assert!(matches!(broadcast(json!([{ "add": "n" }])).await, Answer::Replied(_)));
    assert!(matches!(broadcast(json!([{ "set": ["n", "9"] }, "trap"])).await, Answer::Trapped(_)));
    assert!(matches!(broadcast(json!([{ "set": ["n", "9"] }, { "fail": "retry" }])).await, Answer::Failed(_)));
    assert_eq!(value(&store, "n").await.as_deref(), Some("2"));
    let jobs = store.jobs(wharf_store::JobFilter { max: 10, ..Default::default() }).await.unwrap().jobs;
    assert_eq!(jobs.len(), 1, "one of them enqueued a job: {jobs:?}");
}
