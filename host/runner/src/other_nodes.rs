//! What the other nodes of the store have: as they announced it, some three seconds late. Immutable, swapped whole.
//!
//! A node that fell silent counts for nothing after ten seconds. One that is stopping is not asked to call anybody, but what it
//! has it still has: jobs are taken for it, and wait for the next who has it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use wharf_core::ids::{Group, NodeId, PluginId, TaskName};
use wharf_core::key::Key;
use wharf_core::limits::LimitTable;
use wharf_core::node::{LoadingPlugin, Node, SchemaAnnouncement, TaskAnnouncement};
use wharf_core::time::Timestamp;
use wharf_core::topic::{Subscriptions, Topic};
use wharf_engine::PayloadError;
use wharf_engine::spec::manifest::RECEIVE;
use wharf_engine::spec::payload::{KeyPointer, Schema};

/// Who was not heard of for this long is not asked, nor waited for: it would have said something three times.
const GONE: Duration = Duration::from_secs(10);

/// The other nodes at one moment.
#[derive(Default)]
pub(crate) struct Others {
    /// They were asked for at least once.
    heard: bool,
    nodes: BTreeMap<NodeId, Other>,
    /// By plugin.
    subscriptions: Subscriptions<(PluginId, NodeId)>,
}

struct Other {
    name: String,
    started: Timestamp,
    seen: Timestamp,
    draining: bool,
    plugins: BTreeMap<PluginId, Told>,
    pending: Vec<LoadingPlugin>,
}

/// A plugin's tasks by name, those without terms of which too little is told; `None` where its node does not tell of any.
type Told = Option<BTreeMap<TaskName, Option<Arc<Terms>>>>;

/// What a node that does not have a task needs to know of it to take a job.
pub(crate) struct Terms {
    pub(crate) told: TaskAnnouncement,
    /// It is what a durable broadcast asks of its subscribers.
    pub(crate) of_broadcasts: bool,
    key: Option<KeyPointer>,
    /// Compiled when it is first needed.
    schema: OnceLock<Result<Schema, String>>,
}

/// A task, as far as others have it.
pub(crate) enum There {
    /// Jobs for it can be taken here.
    Known(Arc<Terms>),
    /// These nodes have its plugin, but do not tell enough of it.
    Untold(Vec<String>),
    Nowhere,
}

/// The subscribers of a topic that only others have.
pub(crate) struct Receivers {
    pub(crate) known: Vec<Arc<Terms>>,
    /// Of which too little is told, each with the nodes that have it.
    pub(crate) untold: Vec<(PluginId, Vec<String>)>,
}

impl Terms {
    /// `None` where what is told is not enough, or makes no sense here.
    fn of(told: TaskAnnouncement, of_broadcasts: bool) -> Option<Terms> {
        if told.schema == SchemaAnnouncement::Untold {
            return None;
        }
        let key = told.key.as_deref().map(KeyPointer::parse).transpose().ok()?;
        Some(Terms { told, of_broadcasts, key, schema: OnceLock::new() })
    }

    pub(crate) fn key_of(&self, payload: &[u8]) -> Result<Option<Key>, PayloadError> {
        self.key.as_ref().map_or(Ok(None), |pointer| pointer.find(payload))
    }

    pub(crate) fn check_payload(&self, payload: &[u8]) -> Result<(), PayloadError> {
        let SchemaAnnouncement::Text(text) = &self.told.schema else { return Ok(()) };
        match self.schema.get_or_init(|| Schema::parse(text)) {
            Ok(schema) => schema.check(payload),
            // Its own node took it: the two differ in version.
            Err(why) => Err(PayloadError::Schema(vec![format!("the schema of the task {why}")])),
        }
    }
}

impl Others {
    /// What follows when the nodes of the store have announced this; `here` is the one that listens.
    pub(crate) fn next(&self, here: NodeId, nodes: Vec<Node>) -> Others {
        let mut next = Others { heard: true, ..Others::default() };
        for node in nodes.into_iter().filter(|node| node.id != here) {
            let before = self.nodes.get(&node.id);
            let mut plugins = BTreeMap::new();
            for carried in node.plugins {
                let subscriber = (carried.plugin.clone(), node.id);
                carried.topics.iter().for_each(|topic| next.subscriptions.add(topic, subscriber.clone()));
                let before = before.and_then(|other| other.plugins.get(&carried.plugin)?.as_ref());
                let subscribes = !carried.topics.is_empty();
                let terms = |told: TaskAnnouncement| {
                    let name = told.name.clone();
                    let of_broadcasts = subscribes && name.task() == RECEIVE;
                    // Kept with the schema that was compiled for it.
                    let kept = before.and_then(|before| before.get(&name)?.clone());
                    let kept = kept.filter(|kept| kept.told == told && kept.of_broadcasts == of_broadcasts);
                    (name, kept.or_else(|| Terms::of(told, of_broadcasts).map(Arc::new)))
                };
                plugins.insert(carried.plugin, carried.tasks.map(|tasks| tasks.into_iter().map(terms).collect()));
            }
            let Node { name, started, seen, draining, pending, .. } = node;
            next.nodes.insert(node.id, Other { name, started, seen, draining, plugins, pending });
        }
        next
    }

    /// Whether the others were heard of since this node began.
    pub(crate) fn are_heard(&self) -> bool {
        self.heard
    }

    pub(crate) fn is_alone(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(crate) fn name(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| node.to_string(), |other| other.name.clone())
    }

    pub(crate) fn is_there(&self, node: NodeId, now: Timestamp) -> bool {
        self.nodes.get(&node).is_some_and(|other| other.is_there(now))
    }

    /// Who subscribes on other nodes and not here, each with the one node that is to call it.
    pub(crate) fn subscribers(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> Vec<(NodeId, Vec<PluginId>)> {
        let mut asked: BTreeMap<NodeId, Vec<PluginId>> = BTreeMap::new();
        for (plugin, nodes) in self.elsewhere(topic, here, now) {
            let there = nodes.into_iter().filter(|node| self.nodes.get(node).is_some_and(|other| !other.draining));
            // The work is shared out among those who have it.
            if let Some(node) = there.min_by_key(|node| asked.get(node).map_or(0, Vec::len)) {
                asked.entry(node).or_default().push(plugin);
            }
        }
        asked.into_iter().collect()
    }

    /// For whom a durable broadcast makes jobs, of those who subscribe on other nodes and not here.
    pub(crate) fn receivers(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> Receivers {
        let mut found = Receivers { known: Vec::new(), untold: Vec::new() };
        for (plugin, nodes) in self.elsewhere(topic, here, now) {
            let told = TaskName::new(&plugin, RECEIVE).ok().and_then(|name| self.terms(&name, nodes.iter()));
            match told.filter(|terms| terms.of_broadcasts) {
                Some(terms) => found.known.push(terms),
                None => found.untold.push((plugin, nodes.iter().map(|node| self.name(*node)).collect())),
            }
        }
        found
    }

    fn elsewhere(&self, topic: &Topic, here: &[PluginId], now: Timestamp) -> BTreeMap<PluginId, Vec<NodeId>> {
        let mut found: BTreeMap<PluginId, Vec<NodeId>> = BTreeMap::new();
        for (plugin, node) in self.subscriptions.of(topic) {
            if here.binary_search(&plugin).is_err() && self.is_there(node, now) {
                found.entry(plugin).or_default().push(node);
            }
        }
        found
    }

    /// What other nodes make ready, each with its node. Of one that stops nothing is awaited.
    pub(crate) fn awaited(&self, now: Timestamp) -> impl Iterator<Item = (&str, &LoadingPlugin)> {
        let there = self.nodes.values().filter(move |other| other.is_there(now) && !other.draining);
        there.flat_map(|other| other.pending.iter().map(|pending| (other.name.as_str(), pending)))
    }

    /// Whether another node has the plugin loaded.
    pub(crate) fn has(&self, plugin: &PluginId, now: Timestamp) -> bool {
        self.with(plugin, now).next().is_some()
    }

    pub(crate) fn task(&self, name: &TaskName, now: Timestamp) -> There {
        let plugin = name.plugin();
        let with: Vec<(NodeId, &Told)> = self.with(&plugin, now).collect();
        if let Some(terms) = self.terms(name, with.iter().map(|(node, _)| node)) {
            return There::Known(terms);
        }
        let may_have = |told: &Told| told.as_ref().is_none_or(|told| told.contains_key(name));
        let may_have = with.iter().filter(|(_, told)| may_have(told));
        let untold: Vec<String> = may_have.map(|(node, _)| self.name(*node)).collect();
        if untold.is_empty() { There::Nowhere } else { There::Untold(untold) }
    }

    /// Whether a node that claims jobs runs this task.
    pub(crate) fn runs(&self, name: &TaskName, now: Timestamp) -> bool {
        let claims = |node: &NodeId| self.nodes.get(node).is_some_and(|other| !other.draining);
        // Of one that does not tell it is believed: its jobs do not wait for the plugin.
        self.with(&name.plugin(), now)
            .any(|(node, told)| claims(&node) && told.as_ref().is_none_or(|told| told.contains_key(name)))
    }

    /// Whether another node has tasks in this limit group.
    pub(crate) fn has_group(&self, group: &Group, now: Timestamp) -> bool {
        self.all_terms(now).any(|terms| terms.told.group == *group)
    }

    /// `table`, with what is declared elsewhere of these groups.
    pub(crate) fn limits(&self, table: &LimitTable, groups: &BTreeSet<Group>, now: Timestamp) -> LimitTable {
        let mut table = table.clone();
        for terms in self.all_terms(now).filter(|terms| groups.contains(&terms.told.group)) {
            table.declare(terms.told.group.clone(), terms.told.limits);
        }
        table
    }

    fn all_terms(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Terms>> {
        let there = self.nodes.values().filter(move |other| other.is_there(now));
        there.flat_map(|other| other.plugins.values().flatten()).flat_map(|told| told.values().flatten())
    }

    fn with<'o>(&'o self, plugin: &'o PluginId, now: Timestamp) -> impl Iterator<Item = (NodeId, &'o Told)> {
        let there = self.nodes.iter().filter(move |(_, other)| other.is_there(now));
        there.filter_map(move |(node, other)| Some((*node, other.plugins.get(plugin)?)))
    }

    /// Where nodes differ in what they say of a task, as while it is upgraded one by one, the word of the youngest counts.
    fn terms<'n>(&self, name: &TaskName, nodes: impl Iterator<Item = &'n NodeId>) -> Option<Arc<Terms>> {
        let plugin = name.plugin();
        let others = nodes.filter_map(|node| self.nodes.get(node));
        let told = others.filter_map(|other| Some((other, other.plugins.get(&plugin)?.as_ref()?.get(name)?.as_ref()?)));
        told.min_by_key(|(other, _)| (other.draining, Reverse(other.started))).map(|(_, terms)| Arc::clone(terms))
    }
}

impl Other {
    fn is_there(&self, now: Timestamp) -> bool {
        // One that was seen long after now was seen by a clock that was set back since.
        self.seen + GONE >= now && self.seen <= now + GONE
    }
}

#[cfg(test)]
mod tests;
