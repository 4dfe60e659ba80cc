//! `/v1/nodes`: the hosts that share the store.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_core::ids::NodeId;
use wharf_core::node;

use super::app_state::Face;
use super::problem::Problem;
use super::wire::Moment;

/// A node as it announced itself.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// It is the one that answers.
    pub(crate) here: bool,
    pub(crate) started_at: Moment,
    /// By the store's clock; nodes say every three seconds that they are there.
    pub(crate) seen_at: Moment,
    pub(crate) running: u32,
    pub(crate) capacity: u32,
    pub(crate) draining: bool,
    pub(crate) plugins: Vec<LoadedPlugin>,
}

/// A plugin that the node has loaded.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "CarriedPlugin")]
pub(crate) struct LoadedPlugin {
    pub(crate) id: String,
    pub(crate) version: String,
    pub(crate) digest: String,
}

pub(crate) async fn list(State(face): State<Arc<Face>>) -> Result<Json<Vec<Node>>, Problem> {
    let here = face.host.node();
    Ok(Json(face.host.nodes().await?.into_iter().map(|node| document(node, here)).collect()))
}

fn document(node: node::Node, here: NodeId) -> Node {
    let carried = |carried: node::LoadedPlugin| LoadedPlugin {
        id: carried.plugin.to_string(),
        version: carried.version,
        digest: carried.digest,
    };
    Node {
        id: node.id.to_string(),
        name: node.name,
        version: node.version,
        here: node.id == here,
        started_at: Moment(node.started),
        seen_at: Moment(node.seen),
        running: node.running,
        capacity: node.capacity,
        draining: node.draining,
        plugins: node.plugins.into_iter().map(carried).collect(),
    }
}
