//! Nodes: which are live, and which cancellations of their jobs they learn of.

use std::sync::Arc;

use wharf_core::activity::ActivityLog;
use wharf_core::ids::NodeId;
use wharf_core::lifecycle::Event;
use wharf_core::limits::{Limits, OnConflict};
use wharf_core::node::{LoadedPlugin, LoadingPlugin, Node, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::outcome::OutcomeKind;

use crate::stage::{COUNT, LEASE, SECOND, Stage, on_every_store, task, usage};

fn node(stage: &Stage, id: u64, name: &str) -> Node {
    let task = |name: &str, schema| TaskAnnouncement {
        memory_bytes: 128 << 20,
        name: name.parse().unwrap(),
        group: "hands".parse().unwrap(),
        limits: Limits { per_key: Some(0), total: None },
        on_conflict: OnConflict::Discard,
        key: Some("/ä b/\0".into()),
        schema,
    };
    let carried = |plugin: &str, tasks| LoadedPlugin {
        plugin: plugin.parse().unwrap(),
        version: "1.2.0".into(),
        digest: "ab".repeat(32),
        topics: vec!["document.*".parse().unwrap(), ">".parse().unwrap()],
        tasks,
    };
    let schema = SchemaAnnouncement::Text("{\n\"type\": \"object\", \"title\": \"%41 ü\"}".repeat(1000));
    let awaited = |plugin: &str, topics| LoadingPlugin { plugin: plugin.parse().unwrap(), topics };
    let words = vec![
        task("words/count", schema),
        task("words/list", SchemaAnnouncement::Absent),
        task("words/receive", SchemaAnnouncement::NotAnnounced),
    ];
    Node {
        id: NodeId(id),
        name: name.to_owned(),
        version: "0.1.0".to_owned(),
        started: stage.store.now(),
        seen: stage.store.now(),
        capacity: 256,
        running: 3,
        memory_budget: Some(1 << 30),
        draining: false,
        stopping: true,
        settings: Some("d1".to_owned()),
        plugins: vec![carried("words", Some(words)), carried("none", Some(vec![])), carried("old", None)],
        pending: vec![
            awaited("slow", None),
            awaited("muted", Some(vec![])),
            awaited("some", Some(vec!["-".parse().unwrap(), "a.>".parse().unwrap()])),
        ],
    }
}

#[test]
fn nodes_are_listed_until_they_deregister_or_fall_silent() {
    on_every_store(|stage| async move {
        let (mut b, a) = (node(&stage, u64::MAX, "b:7070"), node(&stage, 1, "a:7070"));
        stage.store.register(b.clone(), LEASE).await.unwrap();
        stage.store.register(a.clone(), LEASE).await.unwrap();
        assert_eq!(stage.store.nodes().await.unwrap(), [a.clone(), b.clone()]);

        stage.pass(SECOND);
        (b.draining, b.running, b.plugins, b.pending) = (true, 0, vec![], vec![]);
        b.settings = Some("d2".to_owned());
        stage.store.register(b.clone(), LEASE).await.unwrap();
        b.seen = stage.store.now();
        assert_eq!(stage.store.nodes().await.unwrap(), [a.clone(), b.clone()], "each as it last registered");

        stage.pass(LEASE);
        stage.store.register(b.clone(), LEASE).await.unwrap();
        b.seen = stage.store.now();
        assert_eq!(stage.store.nodes().await.unwrap(), [b.clone()], "the other one was silent");
        stage.store.deregister(b.id).await.unwrap();
        assert!(stage.store.nodes().await.unwrap().is_empty());
    });
}

#[test]
fn a_node_learns_which_of_its_jobs_others_cancelled() {
    on_every_store(|stage| async move {
        stage.add_many(COUNT, "", 3).await;
        let leased = stage.claim(2).await;
        let (here, job) = (leased[0].lease.node, leased[1].lease.job);
        let Some(messages) = stage.store.messages() else { return };
        assert_eq!(messages.cancel_requests(here).await.unwrap(), []);
        stage.record(job, Event::CancelRequested).await.unwrap();
        assert_eq!(messages.cancel_requests(here).await.unwrap(), [job]);
        assert_eq!(messages.cancel_requests(NodeId(999)).await.unwrap(), []);
        stage.succeed(&leased[1]).await.unwrap();
        assert_eq!(messages.cancel_requests(here).await.unwrap(), []);
    });
}

#[test]
fn the_activity_of_a_node_is_kept_until_it_deregisters_or_falls_silent() {
    on_every_store(|stage| async move {
        let mut log = ActivityLog::default();
        let key = "a b".parse().unwrap();
        log.add(&task(COUNT), Some(&key), OutcomeKind::Trapped, &usage(), SECOND);
        let activity = |seconds: u32| Arc::new(log.clone().activity(seconds * SECOND));
        let (early, late) = (activity(5), activity(70));
        let store = &stage.store;
        store.set_activity(NodeId(1), early.clone()).await.unwrap();
        assert_eq!(store.activities().await.unwrap(), [], "it is not registered");
        for id in [1, 2] {
            store.register(node(&stage, id, "n"), 30 * SECOND).await.unwrap();
            store.set_activity(NodeId(id), early.clone()).await.unwrap();
        }
        store.set_activity(NodeId(1), late.clone()).await.unwrap();
        let found = async || {
            let mut found = store.activities().await.unwrap();
            found.sort_by_key(|(node, _)| *node);
            found
        };
        assert_eq!(found().await, [(NodeId(1), late.clone()), (NodeId(2), early.clone())]);
        store.deregister(NodeId(2)).await.unwrap();
        assert_eq!(found().await, [(NodeId(1), late)]);
        stage.pass(31 * SECOND);
        store.register(node(&stage, 3, "n"), 30 * SECOND).await.unwrap();
        assert_eq!(found().await, []);
    });
}
