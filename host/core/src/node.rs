//! What the nodes of one store publish about themselves.

use crate::bounds;
use crate::ids::{Group, NodeId, PluginId, TaskName};
use crate::limits::{Limits, OnConflict};
use crate::time::Timestamp;
use crate::topic::{Pattern, Subscriptions, Topic};

/// The name of a node as operators write it: its ID, its name, or "self" for the node that they ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// The node that is asked.
    Here,
    /// Another text: the ID or the name of a node.
    Text(String),
}

impl NodeName {
    /// The text that names the node that is asked.
    pub const HERE: &str = "self";

    /// Returns the name that operators wrote.
    pub fn of(text: &str) -> NodeName {
        if text == NodeName::HERE { NodeName::Here } else { NodeName::Text(text.to_owned()) }
    }

    /// Returns the node that is meant among those that are known, each with its name; `here` is the one that is asked. An ID
    /// comes before a name.
    ///
    /// # Errors
    ///
    /// Returns the nodes that have the name if they are not exactly one.
    pub fn find(&self, here: NodeId, known: &[(NodeId, &str)]) -> Result<NodeId, Vec<NodeId>> {
        let NodeName::Text(text) = self else { return Ok(here) };
        if let Some((id, _)) = known.iter().find(|(id, _)| id.to_string() == *text) {
            return Ok(*id);
        }
        let named: Vec<NodeId> = known.iter().filter(|(_, name)| name == text).map(|(id, _)| *id).collect();
        match named[..] {
            [one] => Ok(one),
            _ => Err(named),
        }
    }
}

/// A running host, as it registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The node's ID.
    pub id: NodeId,
    /// A name for operators: the machine and the port.
    pub name: String,
    /// The host's version.
    pub version: String,
    /// When the host started.
    pub started: Timestamp,
    /// When the node registered last, by the store's clock.
    pub seen: Timestamp,
    /// Number of attempts that may run at once.
    pub capacity: u32,
    /// Number of attempts that are running.
    pub running: u32,
    /// The node's budget of memory in bytes; `None` if it does not publish one.
    pub memory_budget: Option<u64>,
    /// True if the node claims no jobs: it is stopping, or an operator drains it.
    pub draining: bool,
    /// True if the node is stopping: it does not claim jobs again.
    pub stopping: bool,
    /// The digest of the settings that all nodes should share; `None` if the node's version does not publish it.
    pub settings: Option<String>,
    /// The plugins that are loaded.
    pub plugins: Vec<LoadedPlugin>,
    /// The plugins that are loading and have no earlier version loaded.
    pub pending: Vec<LoadingPlugin>,
}

impl Node {
    /// Returns true if another one of the nodes has taken this node's place: it has the name, started after this node registered last, and
    /// has registered for some time while this node has not. A host that was killed stays listed for a while.
    pub fn is_replaced(&self, nodes: &[Node]) -> bool {
        let replaces = |other: &Node| other.started > self.seen && other.seen >= self.seen + bounds::NODE_SILENT;
        nodes.iter().any(|other| other.id != self.id && other.name == self.name && replaces(other))
    }
}

/// A plugin that a node is loading for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadingPlugin {
    /// The plugin's ID.
    pub plugin: PluginId,
    /// The topics to which it will subscribe; `None` if they are not known before it is loaded.
    pub topics: Option<Vec<Pattern>>,
}

impl LoadingPlugin {
    /// Returns true if the plugin subscribes to this topic, or may do so.
    pub fn may_subscribe(&self, topic: &Topic) -> bool {
        self.topics.as_ref().is_none_or(|topics| {
            let mut subscriptions = Subscriptions::default();
            topics.iter().for_each(|pattern| subscriptions.add(pattern, ()));
            !subscriptions.of(topic).is_empty()
        })
    }
}

/// A plugin that a node has loaded. Only such a node claims the plugin's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedPlugin {
    /// The plugin's ID.
    pub plugin: PluginId,
    /// The plugin's version.
    pub version: String,
    /// The digest of the plugin's file. Nodes with different digests run different code.
    pub digest: String,
    /// The topics to which the plugin subscribes on this node.
    pub topics: Vec<Pattern>,
    /// The plugin's tasks; `None` if the node's version does not publish them.
    pub tasks: Option<Vec<TaskAnnouncement>>,
}

/// A task as a node publishes it: what another node, without the plugin, needs to enqueue jobs for the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskAnnouncement {
    /// The task's name.
    pub name: TaskName,
    /// The limit group of its jobs.
    pub group: Group,
    /// The limits that the task declares for its group.
    pub limits: Limits,
    /// The rule for jobs whose lane has no free slot.
    pub on_conflict: OnConflict,
    /// The JSON pointer to a job's key in its payload, if jobs have one.
    pub key: Option<String>,
    /// The most memory that an attempt of it may use, in bytes.
    pub memory_bytes: u64,
    /// The schema of payloads.
    pub schema: SchemaAnnouncement,
}

/// A task's payload schema as a node publishes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaAnnouncement {
    /// The task has no schema: any payload is valid.
    Absent,
    /// The JSON Schema.
    Text(String),
    /// The task has a schema that is too large to be published.
    NotAnnounced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_its_id_its_name_or_as_the_one_that_is_asked() {
        let known = [(NodeId(1), "a:7070"), (NodeId(2), "b:7070"), (NodeId(3), "b:7070")];
        let find = |text: &str| NodeName::of(text).find(NodeId(1), &known);
        assert_eq!(find("self"), Ok(NodeId(1)));
        assert_eq!(find("a:7070"), Ok(NodeId(1)));
        assert_eq!(find(&NodeId(3).to_string()), Ok(NodeId(3)));
        assert_eq!(find("b:7070"), Err(vec![NodeId(2), NodeId(3)]), "a host that was killed stays listed for a while");
        assert_eq!(find("c:7070"), Err(vec![]));
    }

    #[test]
    fn a_node_is_replaced_by_one_of_its_name_that_started_since() {
        let at = Timestamp::from_millis;
        let node = |id, name: &str, started, seen| Node {
            id: NodeId(id),
            name: name.to_owned(),
            version: String::new(),
            started: at(started),
            seen: at(seen),
            capacity: 1,
            running: 0,
            memory_budget: None,
            draining: false,
            stopping: false,
            settings: None,
            plugins: vec![],
            pending: vec![],
        };
        let nodes = [
            node(1, "a", 10, 50),
            node(2, "a", 60, 15_000),
            node(3, "b", 60, 90),
            node(4, "b", 70, 90),
            node(5, "c", 10, 3_000),
            node(6, "c", 3_500, 5_000),
        ];
        let replaced: Vec<bool> = nodes.iter().map(|node| node.is_replaced(&nodes)).collect();
        let expected = [true, false, false, false, false, false];
        assert_eq!(
            replaced, expected,
            "two that run side by side are told apart by their IDs, also when one has just started"
        );
    }

    #[test]
    fn a_plugin_that_loads_may_subscribe_to_the_topics_that_it_announced() {
        let loading = |topics: Option<&[&str]>| LoadingPlugin {
            plugin: "p".parse().unwrap(),
            topics: topics.map(|topics| topics.iter().map(|topic| topic.parse().unwrap()).collect()),
        };
        let topic: Topic = "document.saved".parse().unwrap();
        assert!(loading(Some(&["user.*", "document.>"])).may_subscribe(&topic));
        assert!(!loading(Some(&["user.*"])).may_subscribe(&topic) && !loading(Some(&[])).may_subscribe(&topic));
        assert!(loading(None).may_subscribe(&topic), "its topics are not known, so any broadcast may be for it");
    }
}
