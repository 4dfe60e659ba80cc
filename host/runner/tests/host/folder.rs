//! Plugins are added, changed and removed while jobs run.

use std::fs;
use std::time::Duration;

use serde_json::json;
use wharf_core::ids::PluginId;
use wharf_core::job::StateName;
use wharf_runner::{BadRequest, EnqueueError, EnqueueRejection, JobWaitReason, Notice};

use crate::setup::{Setup, component, memory, order};

#[tokio::test(flavor = "multi_thread")]
async fn an_added_plugin_is_loaded_and_a_removed_one_leaves_its_jobs_waiting() {
    let running = Setup::new().start(memory()).await;
    let Err(EnqueueError::EnqueueRejection(EnqueueRejection::Requests(problems))) =
        running.host.enqueue(vec![order("do", "{}")]).await
    else {
        panic!("a task of no plugin was taken")
    };
    assert!(matches!(problems[..], [(0, BadRequest::UnknownTask { .. })]));

    let file = running.plugins.join("villain.wasm");
    let beside = running.plugins.join(".villain.part");
    fs::copy(component("villain"), &beside).unwrap();
    fs::rename(&beside, &file).unwrap();
    running.until_notified("it was loaded", |notice| matches!(notice, Notice::PluginLoaded { .. })).await;
    assert_eq!(running.result(order("do", r#"{"do":"echo","payload":1}"#)).await, json!(1));

    let runs = running.enqueue(order("slow", r#"{"do":"sleep","ms":1500}"#)).await;
    let waits = running
        .enqueue(wharf_runner::Request { delay: Some(Duration::from_secs(1)), ..order("do", r#"{"do":"echo"}"#) })
        .await;
    running.until_running(runs).await;
    fs::remove_file(&file).unwrap();
    running.until_notified("it was retired", |notice| matches!(notice, Notice::PluginRetired { .. })).await;
    assert_eq!(
        running.finished(runs).await.job.status.state.name(),
        StateName::Succeeded,
        "it finishes on what it has"
    );
    let view = running.host.job(waits).await.unwrap().unwrap();
    let villain: PluginId = "villain".parse().unwrap();
    assert_eq!(view.waiting, Some(JobWaitReason::PluginAbsent { plugin: villain, refused: None }));

    fs::copy(component("villain"), &file).unwrap();
    assert_eq!(running.finished(waits).await.job.status.state.name(), StateName::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_fails_leaves_the_running_version() {
    let setup = Setup::new().with(&["villain"]);
    fs::write(setup.plugins().join("stranger.cwasm"), "anything").unwrap();
    fs::write(setup.plugins().join("notes.txt"), "anything").unwrap();
    let running = setup.start(memory()).await;
    let before = running.host.catalog();
    assert_eq!(before.refused().len(), 1);
    assert!(before.refused().values().next().unwrap().why.to_string().starts_with("compiled code is never loaded"));

    let file = running.plugins.join("villain.wasm");
    fs::write(&file, "broken").unwrap();
    let broken = |notice: &Notice| matches!(notice, Notice::PluginRefused { kept: true, .. });
    running.until_notified("it was refused", broken).await;
    assert_eq!(running.result(order("do", r#"{"do":"echo","payload":2}"#)).await, json!(2));
    let villain: PluginId = "villain".parse().unwrap();
    assert!(running.host.catalog().refusal(&villain).is_some());

    // Restored to what runs already: nothing is loaded anew, and the refusal is gone.
    fs::copy(component("villain"), &file).unwrap();
    let mended = async {
        while running.host.catalog().refusal(&villain).is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::setup::LONG, mended).await.unwrap();
    let after = running.host.catalog();
    assert_eq!(before.plugin(&villain).unwrap().since, after.plugin(&villain).unwrap().since);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_replaced_under_load_fails_no_job() {
    let running = Setup::new().with(&["villain"]).start(memory()).await;
    let mut ids = Vec::new();
    for round in 0..6u8 {
        for _ in 0..20 {
            ids.push(running.enqueue(order("do", r#"{"do":"sleep","ms":20}"#)).await);
        }
        // The same component but for one section that says nothing: another digest, a plugin of its own.
        let mut changed = fs::read(component("villain")).unwrap();
        changed.extend([0, 3, 1, b'r', round]);
        let beside = running.plugins.join(".next");
        fs::write(&beside, changed).unwrap();
        fs::rename(&beside, running.plugins.join("villain.wasm")).unwrap();
        let loaded =
            |notices: &[Notice]| notices.iter().filter(|notice| matches!(notice, Notice::PluginLoaded { .. })).count();
        let wanted = usize::from(round) + 2;
        let swapped = async {
            while loaded(&running.notices()) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::setup::LONG, swapped).await.unwrap();
    }
    for id in ids {
        let job = running.finished(id).await.job;
        assert_eq!((job.status.state.name(), job.status.attempt), (StateName::Succeeded, 1), "{:?}", job.report);
    }
}
