use super::*;
use wharf_core::limits::{Limits, OnConflict};
use wharf_core::node::LoadedPlugin;

const NOW: Timestamp = Timestamp::from_millis(1_900_000_000_000);
const HERE: NodeId = NodeId(1);

fn name(text: &str) -> TaskName {
    text.parse().unwrap()
}

fn plugin(text: &str) -> PluginId {
    text.parse().unwrap()
}

fn task(text: &str, group: &str) -> TaskAnnouncement {
    TaskAnnouncement {
        name: name(text),
        memory_bytes: 128 << 20,
        group: group.parse().unwrap(),
        limits: Limits { per_key: Some(1), total: None },
        on_conflict: OnConflict::Wait,
        key: None,
        schema: SchemaAnnouncement::Absent,
    }
}

fn loaded(id: &str, topics: &[&str], tasks: Option<Vec<TaskAnnouncement>>) -> LoadedPlugin {
    let topics = topics.iter().map(|topic| topic.parse().unwrap()).collect();
    LoadedPlugin { plugin: plugin(id), version: "1".into(), digest: String::new(), topics, tasks }
}

fn node(id: u64, plugins: Vec<LoadedPlugin>) -> Node {
    let name = format!("n{id}");
    let (version, started) = ("0".to_owned(), NOW);
    Node {
        id: NodeId(id),
        name,
        version,
        started,
        seen: NOW,
        capacity: 1,
        running: 0,
        memory_budget: Some(1 << 30),
        draining: false,
        stopping: false,
        settings: None,
        plugins,
        pending: vec![],
    }
}

fn of(nodes: Vec<Node>) -> OtherNodes {
    OtherNodes::default().next(HERE, nodes)
}

fn group_of(others: &OtherNodes, task: &str) -> Option<String> {
    match others.task(&name(task), NOW) {
        TaskElsewhere::Known(task) => Some(task.announcement.group.to_string()),
        TaskElsewhere::Unknown(_) | TaskElsewhere::Nowhere => None,
    }
}

#[test]
fn a_task_is_known_from_the_live_nodes_that_have_it() {
    let words = || vec![loaded("words", &[], Some(vec![task("words/count", "g")]))];
    let lost = Node { seen: NOW - LOST_AFTER - Duration::from_millis(1), ..node(2, words()) };
    let (itself, draining) = (node(HERE.0, words()), Node { draining: true, ..node(3, words()) });
    assert!(!OtherNodes::default().are_known() && of(vec![]).are_known());
    for nobody in [of(vec![]), of(vec![itself]), of(vec![lost])] {
        assert!(matches!(nobody.task(&name("words/count"), NOW), TaskElsewhere::Nowhere));
        assert!(!nobody.has_plugin(&plugin("words"), NOW));
    }
    // Its jobs are accepted, and wait for the next node that has it.
    let stopping = of(vec![draining]);
    assert_eq!(group_of(&stopping, "words/count").as_deref(), Some("g"));
    assert!(!stopping.runs(&name("words/count"), NOW) && of(vec![node(2, words())]).runs(&name("words/count"), NOW));
    assert!(
        matches!(stopping.task(&name("words/list"), NOW), TaskElsewhere::Nowhere),
        "the plugin is loaded, and has no such task"
    );
}

#[test]
fn of_two_versions_that_of_the_younger_node_counts() {
    let with = |id, group| node(id, vec![loaded("words", &[], Some(vec![task("words/count", group)]))]);
    let older = || Node { started: NOW - Duration::from_secs(9), ..with(2, "old") };
    let younger = || with(3, "new");
    for nodes in [vec![older(), younger()], vec![younger(), older()]] {
        assert_eq!(group_of(&of(nodes), "words/count").as_deref(), Some("new"));
    }
    let leaving = Node { draining: true, ..younger() };
    assert_eq!(group_of(&of(vec![older(), leaving]), "words/count").as_deref(), Some("old"));
}

#[test]
fn what_is_not_announced_is_not_guessed() {
    let partial = |schema, key: Option<&str>| TaskAnnouncement {
        schema,
        key: key.map(str::to_owned),
        ..task("words/count", "g")
    };
    let silent = node(2, vec![loaded("words", &["a.*"], None)]);
    let large = partial(SchemaAnnouncement::NotAnnounced, None);
    let strange = partial(SchemaAnnouncement::Absent, Some("no pointer"));
    for others in [
        of(vec![silent]),
        of(vec![node(2, vec![loaded("words", &[], Some(vec![large]))])]),
        of(vec![node(2, vec![loaded("words", &[], Some(vec![strange]))])]),
    ] {
        let TaskElsewhere::Unknown(nodes) = others.task(&name("words/count"), NOW) else { panic!("it was announced") };
        assert_eq!(nodes, ["n2"]);
        assert!(others.runs(&name("words/count"), NOW));
    }
    // One node that announces the task is enough.
    let announcing = node(3, vec![loaded("words", &[], Some(vec![task("words/count", "g")]))]);
    let both = of(vec![node(2, vec![loaded("words", &[], None)]), announcing]);
    assert_eq!(group_of(&both, "words/count").as_deref(), Some("g"));
    let no_schema = partial(SchemaAnnouncement::Text("{\"type\": 7}".into()), None);
    let others = of(vec![node(2, vec![loaded("words", &[], Some(vec![no_schema]))])]);
    let TaskElsewhere::Known(task) = others.task(&name("words/count"), NOW) else { panic!("it was announced") };
    assert!(task.schema().is_err(), "a schema that cannot be read lets nothing pass");
}

#[test]
fn each_subscriber_elsewhere_is_found_once() {
    let receive = |id: &str| loaded(id, &["a.*"], Some(vec![task(&format!("{id}/receive"), "g")]));
    let topic: Topic = "a.b".parse().unwrap();
    let stopping = Node { draining: true, ..node(4, vec![receive("z")]) };
    let others =
        of(vec![node(2, vec![receive("w"), receive("x")]), node(3, vec![receive("x"), receive("y")]), stopping]);
    let found = others.receivers(&topic, &[plugin("w")], NOW);
    let known: Vec<&str> = found.known.iter().map(|task| task.announcement.name.as_str()).collect();
    assert_eq!((known.as_slice(), found.unknown.len()), (["x/receive", "y/receive", "z/receive"].as_slice(), 0));
    let live: Vec<PluginId> =
        others.subscribers(&topic, &[plugin("w")], NOW).into_iter().flat_map(|(_, plugins)| plugins).collect();
    assert_eq!(live.len(), 2, "a node that is stopping calls nobody: {live:?}");
    assert!(others.receivers(&"b".parse().unwrap(), &[], NOW).known.is_empty());
    // A task of that name in a plugin without topics is one like any other.
    let plain = of(vec![node(2, vec![loaded("w", &[], Some(vec![task("w/receive", "g")]))])]);
    assert!(matches!(plain.task(&name("w/receive"), NOW), TaskElsewhere::Known(task) if !task.is_receive));
    let old = of(vec![node(2, vec![loaded("w", &["a.>"], None)])]).receivers(&topic, &[], NOW);
    assert_eq!(old.unknown, [(plugin("w"), vec!["n2".to_owned()])]);
}

#[test]
fn what_others_load_is_awaited_until_they_stop() {
    let pending = |topics: Option<&[&str]>| LoadingPlugin {
        plugin: plugin("words"),
        topics: topics.map(|topics| topics.iter().map(|topic| topic.parse().unwrap()).collect()),
    };
    let with = |pending| Node { pending: vec![pending], ..node(2, vec![]) };
    let all = of(vec![with(pending(None))]);
    assert_eq!(all.awaited(NOW).map(|(node, of)| (node, of.plugin.as_str())).collect::<Vec<_>>(), [("n2", "words")]);
    assert_eq!(all.awaited(NOW + LOST_AFTER + LOST_AFTER).count(), 0);
    assert_eq!(of(vec![Node { draining: true, ..with(pending(None)) }]).awaited(NOW).count(), 0);
    let topic: Topic = "a.b".parse().unwrap();
    let may =
        [None, Some(["a.*"].as_slice()), Some(&["a"]), Some(&[])].map(|topics| pending(topics).may_subscribe(&topic));
    assert_eq!(may, [true, true, false, false]);
}

#[test]
fn a_schema_is_compiled_once_for_as_long_as_it_is_announced() {
    let with = |schema: &str| {
        let announced =
            TaskAnnouncement { schema: SchemaAnnouncement::Text(schema.to_owned()), ..task("words/count", "g") };
        vec![node(2, vec![loaded("words", &[], Some(vec![announced]))])]
    };
    let remote_task = |others: &OtherNodes| match others.task(&name("words/count"), NOW) {
        TaskElsewhere::Known(task) => task,
        TaskElsewhere::Unknown(_) | TaskElsewhere::Nowhere => panic!("it was announced"),
    };
    let passes =
        |others: &OtherNodes, payload: &[u8]| remote_task(others).schema().unwrap().unwrap().check(payload).is_ok();
    let first = of(with(r#"{"type":"object"}"#));
    let again = first.next(HERE, with(r#"{"type":"object"}"#));
    assert!(Arc::ptr_eq(&remote_task(&first), &remote_task(&again)));
    assert!(passes(&again, b"{}") && !passes(&again, b"[]"));
    let changed = again.next(HERE, with(r#"{"type":"array"}"#));
    assert!(passes(&changed, b"[]"));
}

#[test]
fn limits_of_groups_elsewhere_are_added_to_those_here() {
    let mut here = LimitTable::default();
    here.declare("g".parse().unwrap(), Limits { per_key: None, total: Some(9) });
    let others =
        of(vec![node(2, vec![loaded("words", &[], Some(vec![task("words/count", "g"), task("words/list", "h")]))])]);
    let both = others.limits(&here, &BTreeSet::from(["g".parse().unwrap()]), NOW);
    let of = |group: &str| both.of(&group.parse().unwrap());
    assert_eq!(of("g"), Limits { per_key: Some(1), total: Some(9) });
    assert_eq!(of("h"), Limits::default(), "this group was not requested");
    assert!(others.has_group(&"h".parse().unwrap(), NOW) && !others.has_group(&"i".parse().unwrap(), NOW));
}

#[test]
fn a_task_is_too_large_only_where_no_node_that_runs_it_can_hold_it() {
    let needing = |id, memory_bytes, memory_budget| Node {
        memory_budget,
        ..node(
            id,
            vec![loaded("words", &[], Some(vec![TaskAnnouncement { memory_bytes, ..task("words/count", "g") }]))],
        )
    };
    let too_small = |nodes| of(nodes).too_small_for(&name("words/count"), NOW);
    let (small, large) = (Some(256 << 20), Some(8 << 30));
    let most = attempt_memory_max(256 << 20);
    assert_eq!(too_small(vec![needing(2, 900 << 20, small)]), Some((900 << 20, most)));
    assert_eq!(too_small(vec![needing(2, 900 << 20, small), needing(3, 900 << 20, large)]), None);
    assert_eq!(too_small(vec![needing(2, 900 << 20, small), needing(3, 900 << 20, None)]), None, "it does not say");
    assert_eq!(too_small(vec![needing(2, 100 << 20, small)]), None);
    let leaving = Node { draining: true, ..needing(3, 900 << 20, large) };
    assert!(too_small(vec![needing(2, 900 << 20, small), leaving]).is_some(), "a node that stops claims nothing");
    // Of one node's need and another's room nothing is said: it would read as if the task fitted.
    let two = vec![needing(2, 300 << 20, small), needing(3, 20 << 30, large)];
    assert_eq!(too_small(two), Some((300 << 20, most)));
}
