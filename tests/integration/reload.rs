//! The folder: plugins come, change and go while jobs run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Host, Setup, component, eventually};

fn plugin(host: &Host, id: &str) -> Option<Value> {
    let plugins = host.client().get("/v1/plugins").ok();
    plugins.as_array().expect("a list").iter().find(|p| p["id"] == id).cloned()
}

/// The same component with a custom section more: other bytes, the same behaviour.
fn variant(file: &Path, n: u32) -> Vec<u8> {
    let mut bytes = std::fs::read(file).expect("the component");
    let body = [&[4][..], b"note", &n.to_le_bytes()].concat();
    bytes.push(0);
    bytes.push(u8::try_from(body.len()).expect("short"));
    bytes.extend(body);
    bytes
}

#[test]
fn a_plugin_replaced_20_times_under_load_fails_no_job() {
    let host = Setup::default().plugin("words").start();
    let file = component("words");
    let (mut ids, mut swapped_under) = (Vec::new(), 0);
    for round in 0..20 {
        let before = plugin(&host, "words").expect("loaded")["loaded"]["digest"].clone();
        for n in 0..25 {
            ids.push(
                host.enqueue("words/count", json!({ "tenant": format!("t{n}"), "text": "a b\nc", "pause-ms": 5 })),
            );
        }
        // One that lasts over the swap.
        let long = host.enqueue("words/count", json!({ "tenant": "long", "text": "a\nb\nc", "pause-ms": 400 }));
        host.in_state(&long, "running");
        let next = host.dir().join("next.wasm");
        std::fs::write(&next, variant(&file, round)).expect("written");
        host.put_plugin("words", &next);
        eventually("the new version is loaded", || {
            (plugin(&host, "words").expect("it never goes away")["loaded"]["digest"] != before).then_some(())
        });
        swapped_under += usize::from(host.job(&long)["state"] == "running");
        ids.push(long);
    }
    assert!(swapped_under > 0, "some of them ran while their plugin was replaced");
    for id in &ids {
        let job = host.finished(id);
        assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{job}");
    }
}

#[test]
fn a_broken_file_leaves_the_old_version_running_and_says_why() {
    let host = Setup::default().plugin("words").start();
    let broken = host.dir().join("broken");
    std::fs::write(&broken, b"this is no component").expect("written");
    host.put_plugin("words", &broken);
    let refused = eventually("the refusal is shown", || {
        let plugin = plugin(&host, "words")?;
        plugin["refused"].as_object().is_some().then_some(plugin)
    });
    assert!(refused["refused"].to_string().contains("WebAssembly"), "{refused}");
    assert_eq!(host.run("words/count", json!({ "text": "a" }))["state"], "succeeded");

    host.put_plugin("words", &component("words"));
    eventually("the good file clears it", || plugin(&host, "words")?["refused"].is_null().then_some(()));
}

#[test]
fn a_retired_plugin_lets_its_jobs_wait_and_they_say_why() {
    let host = Setup::default().plugin("words").start();
    let running = host.enqueue("words/count", json!({ "text": "a\nb\nc\nd\ne", "pause-ms": 400 }));
    host.in_state(&running, "running");
    let delayed = json!({ "task": "words/count", "payload": { "text": "a" }, "delay": "1500ms" });
    let later = host.enqueue_with(delayed.clone());
    std::fs::remove_file(host.plugin_file("words")).expect("removed");
    eventually("the plugin is retired", || plugin(&host, "words").is_none().then_some(()));
    assert_eq!(host.client().post("/v1/jobs", &delayed).status, 422, "nobody can enqueue for it now");
    assert_eq!(host.finished(&running)["state"], "succeeded", "what ran finishes");
    eventually("the other one waits for its plugin", || {
        (host.job(&later)["wait"]["reason"] == "plugin-absent").then_some(())
    });
    host.put_plugin("words", &component("words"));
    assert_eq!(host.finished(&later)["state"], "succeeded");
}

#[test]
fn a_plugin_dropped_in_while_the_host_runs_can_be_used() {
    let host = Setup::default().start();
    assert!(plugin(&host, "counter").is_none());
    host.put_plugin("counter", &component("words"));
    eventually("it is loaded", || plugin(&host, "counter"));
    assert_eq!(host.run("counter/count", json!({ "text": "a b" }))["state"], "succeeded", "its id is its file's name");
}

/// exo's clean-up awaited while it walked a map that others changed.
#[test]
fn exo_plugins_come_and_go_while_they_are_listed_and_called() {
    let host = Setup::default().plugin("words").start();
    let file = component("words");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !over.load(Ordering::Relaxed) {
                assert!(plugin(&host, "words").is_some(), "the one that stays is always there");
                assert_eq!(host.run("words/count", json!({ "text": "a" }))["state"], "succeeded");
                looks += 1;
            }
            looks
        });
        for n in 0..10 {
            let id = format!("guest-{n}");
            host.put_plugin(&id, &file);
            eventually("it comes", || plugin(&host, &id));
            std::fs::remove_file(host.plugin_file(&id)).expect("removed");
        }
        eventually("the last one goes", || plugin(&host, "guest-9").is_none().then_some(()));
        over.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("the reader saw nothing odd") > 10);
    });
}

#[test]
fn async_and_plain_handlers_are_called_alike() {
    let host = Setup::default().plugin("villain").plugin("villain-async").start();
    let plain = host.enqueue("villain/do", json!({ "do": "echo", "payload": "hello" }));
    let with_async = host.enqueue("villain-async/echo", json!("hello"));
    for id in [plain, with_async] {
        assert_eq!(host.finished(&id)["state"], "succeeded", "{}", host.job(&id));
        assert_eq!(host.result(&id), "hello");
    }
    assert_eq!(plugin(&host, "villain-async").expect("loaded")["loaded"]["is_async"], true);
}

#[test]
fn a_plugin_that_never_describes_itself_is_refused_and_harms_nobody() {
    let host = Setup::default().plugin("words").start();
    host.put_plugin("slow", &component("villain-slow"));
    let job = host.run("words/count", json!({ "text": "a" }));
    assert_eq!(job["state"], "succeeded");
    eventually("it is refused", || plugin(&host, "slow")?["refused"].as_object().map(|_| ()));
}
