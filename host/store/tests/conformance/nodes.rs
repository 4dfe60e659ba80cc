//! Nodes: which are live, and which cancellations of their jobs they learn of.

use wharf_core::ids::NodeId;
use wharf_core::lifecycle::Event;
use wharf_core::limits::{Limits, OnConflict};
use wharf_core::node::{LoadedPlugin, LoadingPlugin, Node, SchemaAnnouncement, TaskAnnouncement};

use crate::stage::{COUNT, LEASE, SECOND, Stage, on_every_store};

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
