//! What the other nodes of the store have loaded, as they announced it up to three seconds ago. Immutable, replaced whole.
//!
//! A node that was not seen for ten seconds counts as lost. One that is stopping is not sent any calls, but its plugins still
//! count: jobs are accepted for them, and wait for the next node that has them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wharf_core::budget::attempt_memory_max;
use wharf_core::ids::{Group, NodeId, PluginId, TaskName};
use wharf_core::limits::LimitTable;
use wharf_core::node::{LoadingPlugin, Node, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::placement::NodeFacts;
use wharf_core::time::Timestamp;
use wharf_core::topic::{Subscriptions, Topic};
use wharf_engine::PayloadError;
use wharf_engine::spec::manifest::RECEIVE;
use wharf_engine::spec::payload::{KeyPointer, Schema};

/// A node that was not seen for this long is neither called nor awaited: it would have sent three heartbeats.
pub(crate) const LOST_AFTER: Duration = Duration::from_secs(10);

/// The other nodes at one moment.
#[derive(Default)]
pub(crate) struct OtherNodes {
    /// The nodes were read from the store at least once.
    known: bool,
    nodes: BTreeMap<NodeId, OtherNode>,
    /// The subscriptions of all their plugins.
    subscriptions: Subscriptions<(PluginId, NodeId)>,
}

/// The announcement of one other node.
struct OtherNode {
    name: String,
    started: Timestamp,
    seen: Timestamp,
    draining: bool,
    running: u32,
    capacity: u32,
    memory_budget: Option<u64>,
    plugins: BTreeMap<PluginId, AnnouncedTasks>,
    pending: Vec<LoadingPlugin>,
}

/// The tasks of a plugin by name, `None` for a task that is announced without all that is needed; `None` in place of the map if
/// the node announces no tasks at all.
type AnnouncedTasks = Option<BTreeMap<TaskName, Option<Arc<RemoteTask>>>>;

/// A task of another node: all that is needed to accept a job for it.
pub(crate) struct RemoteTask {
    pub(crate) announcement: TaskAnnouncement,
    /// The task is the `receive` of a subscriber, to which only durable broadcasts make jobs.
    pub(crate) is_receive: bool,
    key: Option<KeyPointer>,
    /// The schema, compiled when it is first needed.
    schema: OnceLock<Result<Schema, String>>,
}

/// A task, as far as other nodes have it.
pub(crate) enum TaskElsewhere {
    /// Jobs for it can be accepted here.
    Known(Arc<RemoteTask>),
    /// The nodes of these names have its plugin, but do not announce enough of the task.
    Unknown(Vec<String>),
    /// No other node has it.
    Nowhere,
}

/// The subscribers of a topic that only other nodes have.
pub(crate) struct Receivers {
    pub(crate) known: Vec<Arc<RemoteTask>>,
    /// The plugins of which too little is announced, each with the names of its nodes.
    pub(crate) unknown: Vec<(PluginId, Vec<String>)>,
}

impl RemoteTask {
    /// Returns `None` if the announcement is not enough, or cannot be read here.
    fn new(announcement: TaskAnnouncement, is_receive: bool) -> Option<RemoteTask> {
        if announcement.schema == SchemaAnnouncement::NotAnnounced {
            return None;
        }
        let key = announcement.key.as_deref().map(KeyPointer::parse).transpose().ok()?;
        Some(RemoteTask { announcement, is_receive, key, schema: OnceLock::new() })
    }

    /// Returns the task's schema, compiled at the first call; `None` if there is none, or no text of it is known here.
    ///
    /// # Errors
    ///
    /// Returns the error of every payload if the schema cannot be read.
    pub(crate) fn schema(&self) -> Result<Option<&Schema>, PayloadError> {
        let SchemaAnnouncement::Text(text) = &self.announcement.schema else { return Ok(None) };
        match self.schema.get_or_init(|| Schema::parse(text)) {
            Ok(schema) => Ok(Some(schema)),
            // Its own node accepted the schema: the two nodes differ in version.
            Err(why) => Err(PayloadError::Schema(vec![format!("the schema of the task {why}")])),
        }
    }

    /// Returns the pointer that finds a job's key in its payload.
    pub(crate) fn key(&self) -> Option<&KeyPointer> {
        self.key.as_ref()
    }

    /// Returns how many checks a payload may take; `None` if that is not known before the schema is compiled.
    pub(crate) fn checks(&self, payload: &[u8]) -> Option<u64> {
        if !matches!(self.announcement.schema, SchemaAnnouncement::Text(_)) {
            return Some(0);
        }
        Some(self.schema.get()?.as_ref().map_or(0, |schema| schema.checks(payload)))
    }
}

impl OtherNodes {
    /// Returns what follows when the nodes of the store have announced this; `here` is this node.
    pub(crate) fn next(&self, here: NodeId, nodes: Vec<Node>) -> OtherNodes {
        let mut next = OtherNodes { known: true, ..OtherNodes::default() };
        for node in nodes.into_iter().filter(|node| node.id != here) {
            let before = self.nodes.get(&node.id);
            let mut plugins = BTreeMap::new();
            for loaded in node.plugins {
                let subscriber = (loaded.plugin.clone(), node.id);
                loaded.topics.iter().for_each(|topic| next.subscriptions.add(topic, subscriber.clone()));
                let before = before.and_then(|other| other.plugins.get(&loaded.plugin)?.as_ref());
                let subscribes = !loaded.topics.is_empty();
                let task = |announcement: TaskAnnouncement| {
                    let name = announcement.name.clone();
                    let is_receive = subscribes && name.task() == RECEIVE;
                    // Kept with the schema that was compiled for it.
                    let kept = before.and_then(|before| before.get(&name)?.clone());
                    let kept = kept.filter(|kept| kept.announcement == announcement && kept.is_receive == is_receive);
                    (name, kept.or_else(|| RemoteTask::new(announcement, is_receive).map(Arc::new)))
                };
                plugins.insert(loaded.plugin, loaded.tasks.map(|tasks| tasks.into_iter().map(task).collect()));
            }
            let Node { name, started, seen, draining, running, capacity, memory_budget, pending, .. } = node;
            let other = OtherNode { name, started, seen, draining, running, capacity, memory_budget, plugins, pending };
            next.nodes.insert(node.id, other);
        }
        next
    }

    /// Returns true if the other nodes were read from the store since this one started.
    pub(crate) fn are_known(&self) -> bool {
        self.known
    }

    /// Returns true if no other node is known.
    pub(crate) fn is_alone(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Returns the name of a node, or its ID if it is not known.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| node.to_string(), |other| other.name.clone())
    }

    pub(crate) fn is_live(&self, node: NodeId, now: Timestamp) -> bool {
        self.nodes.get(&node).is_some_and(|other| other.is_live(now))
    }

    /// Returns the subscribers that only other nodes have, by the one node that is to call them. `here` are the subscribers of
    /// this node, in order.
    pub(crate) fn subscribers(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> Vec<(NodeId, Vec<PluginId>)> {
        let mut calls: BTreeMap<NodeId, Vec<PluginId>> = BTreeMap::new();
        for (plugin, nodes) in self.elsewhere(topic, here, now) {
            let callable = nodes.into_iter().filter(|node| self.nodes.get(node).is_some_and(|other| !other.draining));
            // The calls are spread over the nodes that have the plugin.
            if let Some(node) = callable.min_by_key(|node| calls.get(node).map_or(0, Vec::len)) {
                calls.entry(node).or_default().push(plugin);
            }
        }
        calls.into_iter().collect()
    }

    /// Returns the subscribers that only other nodes have, for a durable broadcast. `here` are the subscribers of this node, in
    /// order.
    pub(crate) fn receivers(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> Receivers {
        let mut found = Receivers { known: Vec::new(), unknown: Vec::new() };
        for (plugin, nodes) in self.elsewhere(topic, here, now) {
            let task = TaskName::new(&plugin, RECEIVE).ok().and_then(|name| self.remote_task(&name, nodes.iter()));
            match task.filter(|task| task.is_receive) {
                Some(task) => found.known.push(task),
                None => found.unknown.push((plugin, nodes.iter().map(|node| self.name(*node)).collect())),
            }
        }
        found
    }

    /// Returns the subscribers that only live other nodes have, with their nodes.
    fn elsewhere(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> BTreeMap<PluginId, Vec<NodeId>> {
        let mut found: BTreeMap<PluginId, Vec<NodeId>> = BTreeMap::new();
        for (plugin, node) in self.subscriptions.of(topic) {
            if here.binary_search(&plugin).is_err() && self.is_live(node, now) {
                found.entry(plugin).or_default().push(node);
            }
        }
        found
    }

    /// Returns the plugins that other nodes are loading, each with the name of its node. Nothing is awaited from a node that is
    /// stopping.
    pub(crate) fn awaited(&self, now: Timestamp) -> impl Iterator<Item = (&str, &LoadingPlugin)> {
        let live = self.nodes.values().filter(move |other| other.is_live(now) && !other.draining);
        live.flat_map(|other| other.pending.iter().map(|pending| (other.name.as_str(), pending)))
    }

    /// Returns true if another node has the plugin loaded.
    pub(crate) fn has_plugin(&self, plugin: &PluginId, now: Timestamp) -> bool {
        self.with(plugin, now).next().is_some()
    }

    /// Returns what other nodes know of a task.
    pub(crate) fn task(&self, name: &TaskName, now: Timestamp) -> TaskElsewhere {
        let plugin = name.plugin();
        let with: Vec<(NodeId, &AnnouncedTasks)> = self.with(&plugin, now).collect();
        if let Some(task) = self.remote_task(name, with.iter().map(|(node, _)| node)) {
            return TaskElsewhere::Known(task);
        }
        let with = with.iter().filter(|(_, tasks)| may_have(tasks, name));
        let nodes: Vec<String> = with.map(|(node, _)| self.name(*node)).collect();
        if nodes.is_empty() { TaskElsewhere::Nowhere } else { TaskElsewhere::Unknown(nodes) }
    }

    /// Returns true if a node that claims jobs runs this task. A node that announces no tasks is assumed to run it: its jobs do not
    /// wait for the plugin.
    pub(crate) fn runs(&self, name: &TaskName, now: Timestamp) -> bool {
        let claims = |node: &NodeId| self.nodes.get(node).is_some_and(|other| !other.draining);
        self.with(&name.plugin(), now).any(|(node, tasks)| claims(&node) && may_have(tasks, name))
    }

    /// Returns the names of the live other nodes, with what each announced that matters to a task.
    pub(crate) fn facts(&self, name: &TaskName, now: Timestamp) -> impl Iterator<Item = (&str, NodeFacts)> {
        let (name, plugin) = (name.clone(), name.plugin());
        self.nodes.values().filter(move |other| other.is_live(now)).map(move |other| {
            let tasks = other.plugins.get(&plugin);
            let facts = NodeFacts {
                has_plugin: tasks.is_some(),
                runs_task: tasks.is_some_and(|tasks| may_have(tasks, &name)),
                is_loading: other.pending.iter().any(|pending| pending.plugin == plugin),
                draining: other.draining,
                running: other.running,
                capacity: other.capacity,
                is_too_large: other.is_too_large(&name),
                has_memory: true,
            };
            (other.name.as_str(), facts)
        })
    }

    /// Returns the most memory that an attempt of this task needs, and the most that one of these nodes can give it, if no node
    /// that claims its jobs can give it enough. A node that does not publish so much may be able to.
    pub(crate) fn too_small_for(&self, name: &TaskName, now: Timestamp) -> Option<(u64, u64)> {
        let mut found: Option<(u64, u64)> = None;
        for (node, tasks) in self.with(&name.plugin(), now).filter(|(_, tasks)| may_have(tasks, name)) {
            let Some(other) = self.nodes.get(&node).filter(|other| !other.draining) else { continue };
            let task = tasks.as_ref()?.get(name)?.as_ref()?;
            let (needs, most) = (task.announcement.memory_bytes, attempt_memory_max(other.memory_budget?));
            if needs <= most {
                return None;
            }
            found = Some(found.map_or((needs, most), |before| nearer(before, (needs, most))));
        }
        found
    }

    /// Returns true if another node has tasks in this limit group.
    pub(crate) fn has_group(&self, group: &Group, now: Timestamp) -> bool {
        self.all_tasks(now).any(|task| task.announcement.group == *group)
    }

    /// Returns the limit groups in which live other nodes have tasks.
    pub(crate) fn groups(&self, now: Timestamp) -> impl Iterator<Item = &Group> {
        self.all_tasks(now).map(|task| &task.announcement.group)
    }

    /// Returns `table` with the limits that other nodes declare of these groups.
    pub(crate) fn limits(&self, table: &LimitTable, groups: &BTreeSet<Group>, now: Timestamp) -> LimitTable {
        let mut table = table.clone();
        for task in self.all_tasks(now).filter(|task| groups.contains(&task.announcement.group)) {
            table.declare(task.announcement.group.clone(), task.announcement.limits);
        }
        table
    }

    fn all_tasks(&self, now: Timestamp) -> impl Iterator<Item = &Arc<RemoteTask>> {
        let live = self.nodes.values().filter(move |other| other.is_live(now));
        live.flat_map(|other| other.plugins.values().flatten()).flat_map(|tasks| tasks.values().flatten())
    }

    /// Returns the live nodes that have a plugin, each with the plugin's tasks.
    fn with<'o>(&'o self, plugin: &'o PluginId, now: Timestamp) -> impl Iterator<Item = (NodeId, &'o AnnouncedTasks)> {
        let live = self.nodes.iter().filter(move |(_, other)| other.is_live(now));
        live.filter_map(move |(node, other)| Some((*node, other.plugins.get(plugin)?)))
    }

    /// Returns the task as one of `nodes` announces it. If they differ, as during a rolling upgrade, the node that started last
    /// counts.
    fn remote_task<'n>(&self, name: &TaskName, nodes: impl Iterator<Item = &'n NodeId>) -> Option<Arc<RemoteTask>> {
        let plugin = name.plugin();
        let others = nodes.filter_map(|node| self.nodes.get(node));
        let tasks =
            others.filter_map(|other| Some((other, other.plugins.get(&plugin)?.as_ref()?.get(name)?.as_ref()?)));
        tasks.min_by_key(|(other, _)| (other.draining, Reverse(other.started))).map(|(_, task)| Arc::clone(task))
    }
}

/// Returns true if a plugin with these tasks may have the one of this name.
fn may_have(tasks: &AnnouncedTasks, name: &TaskName) -> bool {
    tasks.as_ref().is_none_or(|tasks| tasks.contains_key(name))
}

impl OtherNode {
    /// Returns true if an attempt of this task needs more memory than one can have on this node, as far as that was announced.
    fn is_too_large(&self, name: &TaskName) -> bool {
        let task = || self.plugins.get(&name.plugin())?.as_ref()?.get(name)?.as_ref();
        let needs = task().map(|task| task.announcement.memory_bytes);
        needs.zip(self.memory_budget).is_some_and(|(needs, budget)| needs > attempt_memory_max(budget))
    }

    fn is_live(&self, now: Timestamp) -> bool {
        // A node that was seen long after now was seen by a clock that was set back since.
        self.seen + LOST_AFTER >= now && self.seen <= now + LOST_AFTER
    }
}

/// Returns which of two nodes comes nearer to running a task; for each, the memory that the task needs and the most that the node gives.
pub(crate) fn nearer(one: (u64, u64), other: (u64, u64)) -> (u64, u64) {
    let missing = |(needs, most): (u64, u64)| needs.saturating_sub(most);
    if missing(other) < missing(one) { other } else { one }
}

#[cfg(test)]
mod tests;
