//! Tests a plugin's values in the store: granted or refused at load, bounded, and never at the cost of CPU time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use wharf_core::bounds;
use wharf_core::job::Stream;
use wharf_core::kv::{KvChanges, KvKey, KvKeyQuery};
use wharf_core::outcome::{Interruption, Outcome};
use wharf_core::rollcall::Reply;
use wharf_engine::{AttemptEnd, AttemptHandle, GuestJob, HostCalls, KvAccess, Plugin};

use crate::scene::{RecordingHost, Scene, assert_returned, call, component, message, settings, words_call};

const GRANT: &str = "kv = true";

/// Records what an attempt changes. If there is a gate, each call waits for a permit of it.
struct Kept {
    recorded: RecordingHost,
    changes: Mutex<KvChanges>,
    gate: Option<Arc<Semaphore>>,
}

impl Kept {
    fn new(gate: Option<Arc<Semaphore>>) -> Arc<Kept> {
        let changes = Mutex::new(KvChanges::new("villain-kv".parse().unwrap()));
        Arc::new(Kept { recorded: RecordingHost::default(), changes, gate })
    }

    async fn pass(&self) {
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
    }
}

impl HostCalls for Kept {
    fn emit(&self, chunk: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        self.recorded.emit(chunk)
    }
    fn log(&self, stream: Stream, line: String) {
        self.recorded.log(stream, line);
    }
    fn log_dropped(&self, lines: u64) {
        self.recorded.log_dropped(lines);
    }
    fn progress(&self, fraction: f32, note: String) {
        self.recorded.progress(fraction, note);
    }
    fn enqueue(&self, jobs: Vec<GuestJob>) -> BoxFuture<'_, Result<Vec<String>, String>> {
        self.recorded.enqueue(jobs)
    }
    fn broadcast(
        &self,
        topic: String,
        payload: Vec<u8>,
        timeout: Duration,
        remaining: Duration,
    ) -> BoxFuture<'_, Result<Vec<Reply>, String>> {
        self.recorded.broadcast(topic, payload, timeout, remaining)
    }
    fn kv(&self) -> Option<&dyn KvAccess> {
        Some(self)
    }
}

impl KvAccess for Kept {
    fn value(&self, key: KvKey) -> BoxFuture<'_, Result<Option<Vec<u8>>, String>> {
        async move {
            self.pass().await;
            Ok(self.changes.lock().unwrap().get(&key).flatten().map(|value| value.to_vec()))
        }
        .boxed()
    }
    fn change(&self, key: KvKey, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            self.pass().await;
            let mut changes = self.changes.lock().unwrap();
            changes.put(key, value.map(Into::into)).map_err(|full| full.to_string())
        }
        .boxed()
    }
    fn keys(&self, wanted: KvKeyQuery) -> BoxFuture<'_, Result<Vec<KvKey>, String>> {
        async move {
            self.pass().await;
            Ok(self.changes.lock().unwrap().over(Vec::new(), &wanted))
        }
        .boxed()
    }
}

async fn run(scene: &Scene, plugin: &Arc<Plugin>, steps: &str, kept: &Arc<Kept>) -> AttemptEnd {
    let (handle, host_calls) = (AttemptHandle::new(), Arc::clone(kept));
    let payload = format!("{{\"steps\": {steps}}}");
    scene.engine.call(Arc::clone(plugin), call(plugin, "do", payload), host_calls, handle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_values_without_the_grant_is_refused_with_the_lines_to_paste() {
    let scene = Scene::new(1);
    let shown = async |toml: &str| {
        let bytes = component("villain-kv").await;
        let checked = scene.engine.check("shop", bytes, &settings(toml), &|_| {}).await;
        assert_eq!(checked.plugin.is_none(), !checked.problems.is_empty());
        checked.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let refused = "it imports `wharf:plugin/kv@0.1.0`, but keeping values (`kv`) is not granted\n    \
                   to grant it, in wharf.toml:\n    [plugins.shop]\n    kv = true";
    assert_eq!(shown("").await, refused);
    assert_eq!(shown("kv = false\nenv = { A = \"b\" }").await, refused);
    assert_eq!((shown(GRANT).await, shown("kv = \"1MiB\"").await), (String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reads_what_it_wrote() {
    let scene = Scene::new(1);
    let villain = scene.load_with("villain-kv", GRANT).await;
    let kept = Kept::new(None);
    let steps = r#"[{"get":"a"},{"set":["a","1"]},{"get":"a"},{"set":["b",""]},{"get":"b"},{"remove":"a"},{"get":"a"},
        {"add":"n"},{"add":"n"},{"keys":{"prefix":"","after":null,"most":9}},{"keys":{"prefix":"","after":"b","most":9}}]"#;
    let ended = run(&scene, &villain, steps, &kept).await;
    assert_eq!(assert_returned(&ended), r#"[null,null,"1",null,"",null,null,1,2,["b","n"],["n"]]"#);
    // The values "1" and "" and what was read of them: one digit written twice, and read once.
    assert_eq!(ended.usage.out_bytes, assert_returned(&ended).len() as u64 + 3, "{:?}", ended.usage);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_that_are_too_large_are_refused_and_the_attempt_goes_on() {
    let scene = Scene::new(1);
    let villain = scene.load_with("villain-kv", GRANT).await;
    let (key, value) = (bounds::KV_KEY_BYTES_MAX, bounds::KV_VALUE_BYTES_MAX);
    let (long, longer) = ("k".repeat(key), "k".repeat(key + 1));
    let steps = format!(
        r#"[{{"set":["{longer}",""]}},{{"get":""}},{{"fill":{{"key":"a","bytes":{}}}}},{{"keys":{{"prefix":"{longer}","after":null,"most":1}}}},
            {{"fill":{{"key":"{long}","bytes":{value}}}}},{{"keys":{{"prefix":"","after":null,"most":9}}}}]"#,
        value + 1
    );
    let came: Vec<serde_json::Value> =
        serde_json::from_str(&assert_returned(&run(&scene, &villain, &steps, &Kept::new(None)).await)).unwrap();
    let error = |place: usize| came[place]["error"].as_str().unwrap_or_else(|| panic!("{place}: {came:?}")).to_owned();
    assert!(error(0).contains("expected 1 to 512 bytes, got 513") && error(1).ends_with("got 0"), "{came:?}");
    assert!(error(2).contains("the value is 1048577 bytes; the limit is 1048576"), "{came:?}");
    assert!(error(3).contains("is 513 bytes; the limit is 512"), "{came:?}");
    assert_eq!((&came[4], &came[5]), (&serde_json::Value::Null, &serde_json::json!([long])));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_changes_so_much_and_no_more() {
    let scene = Scene::new(2);
    let (villain, words) = (scene.load_with("villain-kv", GRANT).await, scene.load("words").await);
    let steps = r#"[{"many":{"prefix":"a","count":1000,"bytes":1}},{"set":["more",""]},{"set":["a0","again"]},{"get":"a0"},{"get":"more"}]"#;
    let shown = assert_returned(&run(&scene, &villain, steps, &Kept::new(None)).await);
    assert_eq!(
        shown,
        r#"[1000,null,null,"again",null]"#.replacen(
            "null",
            r#"{"error":"an attempt may change at most 1000 values"}"#,
            1
        )
    );
    let steps = r#"[{"many":{"prefix":"a","count":5,"bytes":1048576}},{"keys":{"prefix":"","after":null,"most":9}}]"#;
    let shown = assert_returned(&run(&scene, &villain, steps, &Kept::new(None)).await);
    assert_eq!(
        shown,
        r#"[{"error":"the values that an attempt changes may have at most 4 MiB in all"},["a0","a1","a2"]]"#
    );
    assert_returned(&scene.run(&words, words_call(&words)).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_the_store_is_no_cpu_time_and_a_stop_ends_it() {
    let scene = Scene::new(2);
    let villain = scene.load_with("villain-kv", "kv = true\ntasks.do.cpu = \"100ms\"").await;
    let gate = Arc::new(Semaphore::new(0));
    let kept = Kept::new(Some(Arc::clone(&gate)));
    let waiting = run(&scene, &villain, r#"[{"get":"a"},{"get":"b"}]"#, &kept);
    let opening = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        gate.add_permits(2);
    };
    let (ended, ()) = tokio::join!(waiting, opening);
    assert_eq!(assert_returned(&ended), "[null,null]");

    let (handle, payload) = (AttemptHandle::new(), r#"{"steps": [{"set":["a","1"]},{"set":["b","1"]}]}"#);
    let calling = call(&villain, "do", payload);
    let running =
        tokio::spawn(scene.engine.call(Arc::clone(&villain), calling, Arc::clone(&kept) as _, handle.clone()));
    gate.add_permits(1);
    while kept.changes.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.stop(Interruption::Host, "told to".to_owned());
    let ended = running.await.unwrap();
    assert!(matches!(&ended.outcome, Outcome::Interrupted(Interruption::Host, why) if why == "told to"), "{ended:?}");
    assert_eq!(kept.changes.lock().unwrap().iter().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_kept_the_guest_is_told() {
    let scene = Scene::new(1);
    let villain = scene.load_with("villain-kv", GRANT).await;
    let steps = r#"{"steps": [{"get":"a"},{"set":["a",""]},{"keys":{"prefix":"","after":null,"most":1}}]}"#;
    let (ended, _) = scene.run(&villain, message(&villain, "kv.do", steps)).await;
    let shown = assert_returned(&ended);
    assert_eq!(shown.matches("no values are available here").count(), 3, "{shown}");
}
