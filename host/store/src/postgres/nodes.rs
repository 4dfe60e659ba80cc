//! The nodes that share the database. Each writes its own row and waits for nobody.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use wharf_core::ids::{JobId, NodeId};
use wharf_core::node::{LoadedPlugin, Node};
use wharf_core::topic::Pattern;

use super::rows::{job_id, length, micros, moment, parse, signed};
use super::session::{Session, SessionError};
use super::task_announcements;
use super::time::{NOW, Time};

/// Writes the row of a node; takes nodes off that were silent too long, or since the clock was set back.
pub(super) async fn announce(
    session: &Session,
    time: &Time,
    node: &Node,
    silent: Duration,
) -> Result<(), SessionError> {
    let text = format!(
        "WITH moment AS MATERIALIZED (SELECT coalesce($1::bigint, {NOW}) AS now),
              gone AS (DELETE FROM wharf.nodes USING moment WHERE (seen < now - $2 OR seen > now + $2) AND id <> $3)
         INSERT INTO wharf.nodes (seen, id, name, version, started, capacity, running, draining, plugins, versions, digests, topics,
             tasks, coming)
         SELECT now, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15 FROM moment
         ON CONFLICT (id) DO UPDATE SET seen = excluded.seen, capacity = excluded.capacity, running = excluded.running,
             draining = excluded.draining, plugins = excluded.plugins, versions = excluded.versions, digests = excluded.digests,
             topics = excluded.topics, coming = excluded.coming,
             tasks = CASE WHEN nodes.tasks = excluded.tasks THEN nodes.tasks ELSE excluded.tasks END"
    );
    let carried = |pick: fn(&LoadedPlugin) -> &str| node.plugins.iter().map(pick).collect::<Vec<&str>>();
    let plugins = carried(|carried| carried.plugin.as_str());
    let (versions, digests) = (carried(|carried| &carried.version), carried(|carried| &carried.digest));
    let topics =
        node.plugins.iter().map(|carried| carried.topics.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" "));
    let topics: Vec<String> = topics.collect();
    let tasks: Vec<String> =
        node.plugins.iter().map(|carried| task_announcements::text(carried.tasks.as_deref())).collect();
    let pending: Vec<String> = node.pending.iter().map(task_announcements::coming_text).collect();
    let (now, silent, id, started) = (time.given(), length(silent), signed(node.id.0), micros(node.started));
    let (capacity, running) = (i64::from(node.capacity), i64::from(node.running));
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
        (&pending as _, Type::TEXT_ARRAY),
    ];
    session.ask(&text, &args).await.map(drop)
}

pub(super) async fn leave(session: &Session, node: NodeId) -> Result<(), SessionError> {
    session.ask("DELETE FROM wharf.nodes WHERE id = $1", &[(&signed(node.0), Type::INT8)]).await.map(drop)
}

pub(super) async fn all(session: &Session) -> Result<Vec<Node>, SessionError> {
    // By the bytes of their names, as everywhere, and not by what the database's language says.
    let found = session.ask("SELECT * FROM wharf.nodes ORDER BY name, id", &[]).await?;
    found.iter().map(node).collect()
}

fn node(row: &Row) -> Result<Node, SessionError> {
    let texts = |column: &str| row.get::<_, Vec<String>>(column);
    // A host from before that column tells of no task.
    let tasks = texts("tasks").into_iter().chain(std::iter::repeat_with(String::new));
    let plugins =
        texts("plugins").into_iter().zip(texts("versions")).zip(texts("digests")).zip(texts("topics")).zip(tasks);
    let carried = |((((plugin, version), digest), topics), tasks): ((((String, String), String), String), String)| {
        let topics = topics.split_whitespace().map(|pattern| parse("a subscription", pattern));
        Ok(LoadedPlugin {
            plugin: parse("a plugin", &plugin)?,
            version,
            digest,
            topics: topics.collect::<Result<_, SessionError>>()?,
            tasks: task_announcements::read(&tasks),
        })
    };
    Ok(Node {
        id: NodeId(row.get::<_, i64>("id") as u64),
        name: row.get("name"),
        version: row.get("version"),
        started: moment(row, "started"),
        seen: moment(row, "seen"),
        capacity: row.get::<_, i64>("capacity") as u32,
        running: row.get::<_, i64>("running") as u32,
        draining: row.get("draining"),
        plugins: plugins.map(carried).collect::<Result<_, SessionError>>()?,
        pending: texts("coming").iter().filter_map(|text| task_announcements::read_coming(text)).collect(),
    })
}

/// Running jobs of this node that somebody asked to end.
pub(super) async fn cancel_requests(session: &Session, node: NodeId) -> Result<Vec<JobId>, SessionError> {
    let text = "SELECT id FROM wharf.jobs WHERE cancel_asked AND state = 2 AND node = $1";
    let node = signed(node.0);
    let found = session.ask_apart(text, &[(&node, Type::INT8)]).await?;
    found.iter().map(|row| job_id(row.get(0))).collect()
}
