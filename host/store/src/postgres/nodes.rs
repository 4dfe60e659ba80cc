//! The nodes that share the database. Each writes its own row, without waiting for others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::activity::Activity;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::lease::NodeMark;
use wharf_core::node::{LoadedPlugin, Node};
use wharf_core::topic::Pattern;

use super::rows::{self, job_id};
use super::session::{Session, SessionError, value};
use super::time::{NOW, Time};
use super::{PostgresStore, activity_text, node_marks, plugin_digests, task_announcements};
use crate::columns::{duration_us, parse, signed, timestamp_us};
use crate::store::{NodeRegistry, StoreError};

/// Writes the row of a node, and deletes nodes that were silent for longer than `silent`, or since the clock was set back.
pub(super) async fn register(
    session: &Session,
    time: &Time,
    node: &Node,
    silent: Duration,
) -> Result<(), SessionError> {
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              gone AS (DELETE FROM $schema.nodes USING moment WHERE (seen_at < now - $2 OR seen_at > now + $2) AND id <> $3)
         INSERT INTO $schema.nodes (seen_at, id, name, version, started_at, capacity, running, draining, plugins,
             plugin_versions, digests, topics, tasks, loading, memory_budget, settings, stopping)
         SELECT now, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18 FROM moment
         ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, capacity = excluded.capacity, running = excluded.running,
             draining = excluded.draining, stopping = excluded.stopping, plugins = excluded.plugins, plugin_versions = excluded.plugin_versions,
             digests = excluded.digests, topics = excluded.topics, loading = excluded.loading,
             memory_budget = excluded.memory_budget, settings = excluded.settings,
             tasks = CASE WHEN nodes.tasks = excluded.tasks THEN nodes.tasks ELSE excluded.tasks END"
    );
    let texts = |pick: fn(&LoadedPlugin) -> &str| node.plugins.iter().map(pick).collect::<Vec<&str>>();
    let plugins = texts(|loaded| loaded.plugin.as_str());
    let (versions, digests) = (texts(|loaded| &loaded.version), texts(|loaded| &loaded.digest));
    let topics =
        node.plugins.iter().map(|loaded| loaded.topics.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" "));
    let topics: Vec<String> = topics.collect();
    let tasks: Vec<String> =
        node.plugins.iter().map(|loaded| task_announcements::write(loaded.tasks.as_deref())).collect();
    let loading: Vec<String> = node.pending.iter().map(task_announcements::write_loading).collect();
    let (now, silent, id, started) =
        (time.manual_micros(), duration_us(silent), signed(node.id.0), timestamp_us(node.started));
    let (capacity, running) = (i64::from(node.capacity), i64::from(node.running));
    let memory_budget = node.memory_budget.map(u64::cast_signed);
    let args = [
        (&now as _, Type::INT8),
        (&silent as _, Type::INT8),
        (&id as _, Type::INT8),
        (&node.name as _, Type::TEXT),
        (&node.version as _, Type::TEXT),
        (&started as _, Type::INT8),
        (&capacity as _, Type::INT8),
        (&running as _, Type::INT8),
        (&node.draining as _, Type::BOOL),
        (&plugins as _, Type::TEXT_ARRAY),
        (&versions as _, Type::TEXT_ARRAY),
        (&digests as _, Type::TEXT_ARRAY),
        (&topics as _, Type::TEXT_ARRAY),
        (&tasks as _, Type::TEXT_ARRAY),
        (&loading as _, Type::TEXT_ARRAY),
        (&memory_budget as _, Type::INT8),
        (&node.settings as _, Type::TEXT),
        (&node.stopping as _, Type::BOOL),
    ];
    session.query(&text, &args).await.map(drop)
}

/// Deletes the row of a node.
pub(super) async fn deregister(session: &Session, node: NodeId) -> Result<(), SessionError> {
    session.query("DELETE FROM $schema.nodes WHERE id = $1", &[(&signed(node.0), Type::INT8)]).await.map(drop)
}

/// Replaces the activity of a node, if it is registered, and deletes those of nodes that are not.
pub(super) async fn set_activity(session: &Session, node: NodeId, activity: &Activity) -> Result<(), SessionError> {
    let text = "WITH gone AS (DELETE FROM $schema.node_activities WHERE node NOT IN (SELECT id FROM $schema.nodes))
                INSERT INTO $schema.node_activities (node, activity) SELECT id, $2 FROM $schema.nodes WHERE id = $1
                ON CONFLICT (node) DO UPDATE SET activity = excluded.activity";
    let activity = activity_text::write(activity);
    session.query(text, &[(&signed(node.0), Type::INT8), (&activity, Type::TEXT)]).await.map(drop)
}

/// Lists the activities of the registered nodes. One that cannot be read, such as that of a newer host, is left out.
pub(super) async fn activities(session: &Session) -> Result<Vec<(NodeId, Arc<Activity>)>, SessionError> {
    let text = "SELECT node, activity FROM $schema.node_activities JOIN $schema.nodes ON id = node";
    let mut found = Vec::new();
    for row in session.query(text, &[]).await? {
        let node = NodeId(value::<i64>(&row, "node_activities", 0)? as u64);
        let text: String = value(&row, "node_activities", 1)?;
        found.extend(activity_text::read(&text).map(|activity| (node, Arc::new(activity))));
    }
    Ok(found)
}

/// Lists the nodes, by name.
pub(super) async fn all(session: &Session) -> Result<Vec<Node>, SessionError> {
    // Sorted by the bytes of their names, as in all stores, whatever the database's locale is.
    let found = session.query("SELECT * FROM $schema.nodes ORDER BY name, id", &[]).await?;
    found.iter().map(node).collect()
}

fn node(row: &Row) -> Result<Node, SessionError> {
    let texts = |column: &str| value::<Vec<String>>(row, "nodes", column);
    let count = |column: &str| value::<i64>(row, "nodes", column).map(|count| count as u32);
    let plugins = texts("plugins")?.into_iter().zip(texts("plugin_versions")?).zip(texts("digests")?);
    let plugins = plugins.zip(texts("topics")?).zip(texts("tasks")?);
    let loaded = |((((plugin, version), digest), topics), tasks): ((((String, String), String), String), String)| {
        let topics = topics.split_whitespace().map(|pattern| parse("subscription", pattern));
        Ok(LoadedPlugin {
            plugin: parse("plugin", &plugin)?,
            version,
            digest,
            topics: topics.collect::<Result<_, _>>()?,
            tasks: task_announcements::read(&tasks),
        })
    };
    Ok(Node {
        id: NodeId(value::<i64>(row, "nodes", "id")? as u64),
        name: value(row, "nodes", "name")?,
        version: value(row, "nodes", "version")?,
        started: rows::timestamp(row, "nodes", "started_at")?,
        seen: rows::timestamp(row, "nodes", "seen_at")?,
        capacity: count("capacity")?,
        running: count("running")?,
        memory_budget: value::<Option<i64>>(row, "nodes", "memory_budget")?.map(i64::cast_unsigned),
        draining: value(row, "nodes", "draining")?,
        stopping: value(row, "nodes", "stopping")?,
        settings: value(row, "nodes", "settings")?,
        plugins: plugins.map(loaded).collect::<Result<_, SessionError>>()?,
        pending: texts("loading")?.iter().filter_map(|text| task_announcements::read_loading(text)).collect(),
    })
}

/// Lists the running jobs of a node whose cancellation was requested.
pub(super) async fn cancel_requests(session: &Session, node: NodeId) -> Result<Vec<JobId>, SessionError> {
    let text = "SELECT id FROM $schema.jobs WHERE cancel_requested AND state = 2 AND node = $1";
    let node = signed(node.0);
    let found = session.query_selective(text, &[(&node, Type::INT8)]).await?;
    found.iter().map(|row| job_id(row, "jobs", 0)).collect()
}

#[async_trait]
impl NodeRegistry for PostgresStore {
    async fn register(&self, node: Node, silent: Duration) -> Result<(), StoreError> {
        let new = self.announced.new_of(&node);
        let register = async |session: &Session| {
            register(session, &self.time, &node, silent).await?;
            if !new.is_empty() {
                plugin_digests::see(session, &self.time, &new).await?;
            }
            Ok(())
        };
        self.urgent(register).await?;
        self.announced.stored(&node);
        Ok(())
    }

    async fn deregister(&self, node: NodeId) -> Result<(), StoreError> {
        let deregister = async |session: &Session| {
            futures_util::try_join!(deregister(session, node), self.source.release(session)).map(drop)
        };
        self.urgent(deregister).await
    }

    async fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        let session = self.reader().await?;
        let nodes = all(&session).await;
        self.finish(session, nodes)
    }

    async fn set_activity(&self, node: NodeId, activity: Arc<Activity>) -> Result<(), StoreError> {
        self.urgent(async |session| set_activity(session, node, &activity).await).await
    }

    async fn activities(&self) -> Result<Vec<(NodeId, Arc<Activity>)>, StoreError> {
        let session = self.reader().await?;
        let activities = activities(&session).await;
        self.finish(session, activities)
    }

    async fn set_node_mark(&self, node: NodeId, mark: NodeMark) -> Result<(), StoreError> {
        self.urgent(async |session| node_marks::write(session, &self.time, node, mark).await).await
    }
}
