//! Tests the host's budget of memory: a guest that grows waits for room and goes on, and one that is released did nothing wrong.

use std::sync::Arc;
use std::time::Duration;

use wharf_core::budget::MemoryUse;
use wharf_core::outcome::{Interruption, Outcome};
use wharf_engine::{AttemptEnd, AttemptHandle, AttemptLimits, Call, Plugin, Reservation};

use crate::scene::{RecordingHost, Scene, assert_returned, call, words_call};

const MIB: u64 = 1 << 20;
const BUDGET: u64 = 256 * MIB;

/// Lets the tasks that these tests run grow to most of the budget.
const LARGE: &str = "receive.memory = '32MiB'\n[tasks]\ndo.memory = '32MiB'\nslow.memory = '200MiB'\n";

async fn scene() -> (Scene, Arc<Plugin>) {
    let scene = Scene::with_budget(8, BUDGET);
    let villain = scene.load_with("villain", LARGE).await;
    (scene, villain)
}

/// Waits until so many wait for memory.
async fn waiting(scene: &Scene, count: u64) {
    while scene.engine.budget().usage().waiting != count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn begin(
    scene: &Scene,
    plugin: &Arc<Plugin>,
    call: Call,
    handle: &AttemptHandle,
) -> tokio::task::JoinHandle<AttemptEnd> {
    scene.begin(plugin, call, &Arc::new(RecordingHost::default()), handle)
}

fn used(scene: &Scene, of: MemoryUse) -> u64 {
    scene.engine.budget().usage().used.iter().find(|(each, _)| *each == of).unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_grows_waits_for_room_and_goes_on() {
    let (scene, villain) = scene().await;
    let words = scene.load("words").await;
    let budget = scene.engine.budget();
    let others = budget.reserve_anyway(MemoryUse::Attempts, budget.most(MemoryUse::Attempts) - 20 * MIB);
    let handle = AttemptHandle::new();
    let attempt = begin(&scene, &villain, call(&villain, "slow", r#"{"do":"hold-mib","mib":60}"#), &handle);
    waiting(&scene, 1).await;
    assert!(handle.waits_for_memory() && !attempt.is_finished());
    // Meanwhile nobody else starts before it, but floors are there.
    assert_eq!(budget.free(MemoryUse::Attempts), 0);
    drop(others);
    let ended = attempt.await.unwrap();
    assert_returned(&ended);
    assert!(!handle.waits_for_memory() && ended.held_bytes > 60 * MIB, "{}", ended.held_bytes);
    assert_returned(&scene.run(&words, words_call(&words)).await.0);
    assert_eq!(used(&scene, MemoryUse::Attempts), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_wait_for_each_other_the_younger_is_released_and_the_older_ends() {
    let (scene, villain) = scene().await;
    let asked = || call(&villain, "slow", r#"{"do":"hoard-politely"}"#);
    let (older, younger) = (AttemptHandle::new(), AttemptHandle::new());
    let first = begin(&scene, &villain, asked(), &older);
    let second = begin(&scene, &villain, asked(), &younger);
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    // Where the first was through before the second began to grow, nobody had to make room.
    assert!(assert_returned(&first).contains("mib"));
    match &second.outcome {
        Outcome::Interrupted(Interruption::Host, why) => assert!(why.contains("memory.budget"), "{why}"),
        other => assert!(matches!(other, Outcome::Returned(_)), "{other:?}"),
    }
    // Alone, it has all that it may have.
    let again = scene.run(&villain, asked()).await.0;
    assert_eq!(assert_returned(&again), assert_returned(&first));
    assert_eq!(used(&scene, MemoryUse::Attempts), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_that_passes_while_it_waits_is_not_its_fault() {
    let (scene, villain) = scene().await;
    let budget = scene.engine.budget();
    let others = budget.reserve_anyway(MemoryUse::Attempts, budget.most(MemoryUse::Attempts) - 4 * MIB);
    let (ended, _) = scene.run(&villain, call(&villain, "hurried", r#"{"do":"hold-mib","mib":20}"#)).await;
    let Outcome::Interrupted(Interruption::Host, why) = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(why.contains("memory.budget"), "{why}");
    assert!(ended.held_bytes > 20 * MIB, "what it asked for is known");
    drop(others);
    let (ended, _) = scene.run(&villain, call(&villain, "hurried", r#"{"do":"hold-mib","mib":20}"#)).await;
    assert_returned(&ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_budget_could_ever_hold_is_refused_at_once() {
    let (scene, villain) = scene().await;
    let asked = call(&villain, "slow", r#"{"do":"hoard"}"#);
    let limits = AttemptLimits { memory_bytes: 1024 * MIB, ..asked.limits };
    let (ended, _) = scene.run(&villain, Call { limits, ..asked }).await;
    let Outcome::OutOfMemory { report, .. } = &ended.outcome else { panic!("{:?}", ended.outcome) };
    assert!(report.contains("this host's budget has at most") && report.contains("memory.budget"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_an_attempt_makes_count_until_it_drops_them() {
    let (scene, villain) = scene().await;
    let asked = call(&villain, "slow", format!(r#"{{"do":"breed","count":3,"pad":"{}"}}"#, "x".repeat(10 << 20)));
    let (ended, recorded) = scene.run(&villain, asked).await;
    assert_returned(&ended);
    let memory = ended.usage.memory_peak_bytes;
    assert!(ended.held_bytes > memory + 30 * MIB, "{} of {memory}", ended.held_bytes);
    // The sandbox is gone, and its jobs are not.
    let left = ended.left.as_ref().map_or(0, Reservation::bytes);
    assert!((30 * MIB..31 * MIB).contains(&left), "{left}");
    assert_eq!(used(&scene, MemoryUse::Attempts), left);
    drop((recorded, ended));
    assert_eq!(used(&scene, MemoryUse::Attempts), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_has_an_eighth_and_the_operator_grants_more() {
    let scene = Scene::with_budget(2, BUDGET);
    let bytes = crate::scene::component("villain").await;
    let load = |toml: &str| {
        let settings = crate::scene::settings(toml);
        let (engine, bytes) = (Arc::clone(&scene.engine), Arc::clone(&bytes));
        async move { engine.load("villain".parse().unwrap(), bytes, &settings, &|_| {}).await }
    };
    let memory = |plugin: &Plugin| plugin.manifest.tasks["slow"].memory_bytes / MIB;
    assert_eq!(memory(&load("").await.unwrap()), 32);
    assert_eq!(memory(&load(LARGE).await.unwrap()), 200);
    let never = load("receive.memory = '32MiB'\n[tasks]\ndo.memory = '32MiB'\nslow.memory = '900MiB'\n").await.unwrap();
    let note = never.notes.iter().map(ToString::to_string).find(|note| note.contains("tasks.slow.memory")).unwrap();
    assert!(note.contains("this host runs no job of it"), "{note}");
    assert!(never.manifest.tasks["slow"].memory_bytes > never.memory_most());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_settings_are_fitted_into_the_budget_as_the_first_ones_were() {
    let (scene, villain) = scene().await;
    let settings = |toml: &str| crate::scene::settings(toml);
    let memory = |plugin: &Plugin| plugin.manifest.tasks["slow"].memory_bytes / MIB;
    assert_eq!(memory(&villain), 200);
    let plain = scene.engine.with_settings(&villain, &settings("")).await.unwrap();
    assert_eq!((memory(&plain), plain.start_bytes), (32, villain.start_bytes), "what the manifest asks for is clamped");
    let never = scene.engine.with_settings(&villain, &settings("[tasks]\nslow.memory = '900MiB'\n")).await.unwrap();
    assert!(
        never.notes.iter().any(|note| note.to_string().contains("this host runs no job of it")),
        "{:?}",
        never.notes
    );
    let again = scene.engine.with_settings(&plain, &settings(LARGE)).await.unwrap();
    assert_eq!(memory(&again), 200);
    assert_returned(&scene.run(&again, call(&again, "slow", r#"{"do":"hold-mib","mib":100}"#)).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_loaded_while_attempts_have_all_the_memory_that_they_may_have() {
    let scene = Scene::with_budget(2, BUDGET);
    let budget = scene.engine.budget();
    let all = budget.reserve_anyway(MemoryUse::Attempts, budget.most(MemoryUse::Attempts));
    assert_eq!(budget.free(MemoryUse::Attempts), 0);
    let words = scene.load("words").await;
    assert!(words.manifest.tasks.contains_key("count"));
    drop(all);
    assert_eq!(used(&scene, MemoryUse::Describe), 0);
}
