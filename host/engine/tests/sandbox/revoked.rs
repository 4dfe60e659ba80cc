//! Tests a plugin that is made again with other settings, and the end of attempts whose plugin lost a grant.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use wharf_core::outcome::{Interruption, Outcome};
use wharf_engine::{AttemptHandle, SettingsError};

use crate::scene::{RecordingHost, Scene, assert_returned, call, settings, words_call};

const WHY: &str = "a grant was taken away";

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_gets_other_settings_and_keeps_its_code() {
    let scene = Scene::new(4);
    let words = scene.load("words").await;
    let other = settings("env = { A = '1' }\n[tasks.count]\nmemory = '32MiB'\nretry = { attempts = 7 }");
    let with = scene.engine.with_settings(&words, &other).await.unwrap();
    assert_eq!((&with.id, &with.digest, with.bytes), (&words.id, &words.digest, words.bytes));
    let of = |plugin: &wharf_engine::Plugin| {
        let task = &plugin.manifest.tasks["count"];
        (task.memory_bytes, task.retry.attempts)
    };
    assert_eq!(of(&with), (32 << 20, 7));
    assert_ne!(of(&words), of(&with), "the one before is as it was");
    for plugin in [&words, &with] {
        assert_returned(&scene.run(plugin, words_call(plugin)).await.0);
    }
    assert_eq!(with.lost_with(&settings("")), ["env"]);
    let again = scene.engine.with_settings(&with, &settings("")).await.unwrap();
    assert_eq!(of(&again), of(&words));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_grant_too_little_or_do_not_fit_are_told_apart() {
    let scene = Scene::new(4);
    let (words, kept) = (scene.load("words").await, scene.load_with("villain-kv", "kv = true").await);
    let Err(SettingsError::NotGranted(why)) = scene.engine.with_settings(&kept, &settings("")).await else {
        panic!("it needs its grant")
    };
    assert!(why.to_string().contains("kv = true") && !why.passing, "{why}");
    for (wrong, says) in [
        ("[tasks.cuont]\nmemory = '1MiB'", "unknown task [plugins.words.tasks.cuont]"),
        ("[tasks.count]\nmemory = '1TiB'", "tasks.count.memory: "),
        ("[tasks.count]\npayload-schema = '{'", "tasks.count.payload-schema: "),
    ] {
        let Err(SettingsError::Invalid(problems)) = scene.engine.with_settings(&words, &settings(wrong)).await else {
            panic!("{wrong} does not fit")
        };
        assert!(problems[0].to_string().contains(says), "{problems:?}");
    }
}

fn is_revoked(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Interrupted(Interruption::Host, why) if why == WHY)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_ends_at_its_next_host_call_when_its_plugin_lost_a_grant() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let gate = Arc::new(Semaphore::new(1));
    let recorded = Arc::new(RecordingHost { gate: Some(Arc::clone(&gate)), ..RecordingHost::default() });
    let emits = call(&villain, "slow", r#"{"do": "emit", "chunks": 5}"#);
    let running = scene.begin(&villain, emits.clone(), &recorded, &AttemptHandle::new());
    while recorded.chunks.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    villain.revoke(WHY.to_owned());
    // The second call may have begun before.
    gate.add_permits(9);
    let ended = running.await.unwrap();
    assert!(is_revoked(&ended.outcome), "{:?}", ended.outcome);
    assert!(recorded.chunks.lock().unwrap().len() <= 2);

    let (ended, recorded) = scene.run(&villain, emits).await;
    assert!(is_revoked(&ended.outcome) && recorded.chunks.lock().unwrap().is_empty(), "no other begins");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_computes_ends_at_its_next_tick_when_its_plugin_lost_a_grant() {
    let scene = Scene::new(4);
    let villain = scene.load("villain").await;
    let recorded = Arc::new(RecordingHost::default());
    let handle = AttemptHandle::new();
    let spins = call(&villain, "slow", r#"{"do": "spin", "ms": 250000}"#);
    let running = scene.begin(&villain, spins, &recorded, &handle);
    tokio::time::sleep(Duration::from_millis(50)).await;
    villain.revoke(WHY.to_owned());
    let ended = running.await.unwrap();
    assert!(is_revoked(&ended.outcome), "{:?}", ended.outcome);
}
