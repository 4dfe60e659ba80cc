//! What the nodes of one store tell each other of themselves.

use crate::ids::{Group, NodeId, PluginId, TaskName};
use crate::limits::{Limits, OnConflict};
use crate::time::Timestamp;
use crate::topic::{Pattern, Subscriptions, Topic};

/// One running host, as it announced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    /// For people: the machine and the port.
    pub name: String,
    /// Of the host.
    pub version: String,
    pub started: Timestamp,
    /// When it last said something, by the store's clock.
    pub seen: Timestamp,
    /// Attempts that may run at once, and that do.
    pub capacity: u32,
    pub running: u32,
    pub draining: bool,
    pub plugins: Vec<LoadedPlugin>,
    /// What it makes ready, and has no version of yet.
    pub pending: Vec<LoadingPlugin>,
}

/// A plugin that a node makes ready for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadingPlugin {
    pub plugin: PluginId,
    /// To what it will subscribe, where that is known before it is loaded.
    pub topics: Option<Vec<Pattern>>,
}

impl LoadingPlugin {
    /// Whether it may subscribe to this topic.
    pub fn may_subscribe(&self, topic: &Topic) -> bool {
        self.topics.as_ref().is_none_or(|topics| {
            let mut subscriptions = Subscriptions::default();
            topics.iter().for_each(|pattern| subscriptions.add(pattern, ()));
            !subscriptions.of(topic).is_empty()
        })
    }
}

/// A plugin that a node has loaded: only such a node claims its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedPlugin {
    pub plugin: PluginId,
    pub version: String,
    /// Of its file: where two nodes differ here, they run different code.
    pub digest: String,
    /// What it subscribes to there.
    pub topics: Vec<Pattern>,
    /// All that its jobs may be made of; `None` where the node is of a version that does not tell.
    pub tasks: Option<Vec<TaskAnnouncement>>,
}

/// What has to be known of a task to take jobs for it on a node that does not have its plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskAnnouncement {
    pub name: TaskName,
    pub group: Group,
    pub limits: Limits,
    pub on_conflict: OnConflict,
    /// Where a job's key is found in its payload, as a JSON pointer.
    pub key: Option<String>,
    pub schema: SchemaAnnouncement,
}

/// What a node tells of the schema of a task's payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaAnnouncement {
    /// There is none: any payload will do.
    Absent,
    /// The JSON Schema.
    Text(String),
    /// There is one, but it is too large to be told to others.
    Untold,
}
